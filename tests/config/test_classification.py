"""The lists that classify the settings of a recipe: a new setting belongs into each of them."""

import dataclasses

from jaxstyle import Recipe, images
from jaxstyle.cli.options import OBJECTIVE
from jaxstyle.config.numbers import HOST_SETTINGS, Numbers
from jaxstyle.sweep.cell import OPTIMIZATION_SETTINGS

ALL = {field.name for field in dataclasses.fields(Recipe)}
# Programs are compiled anew for other values of these.
STRUCTURE = {
    "preserve_color", "content_loss", "style_loss", "turn_style", "gram_normalization",
    "style_reduction", "content_reduction", "variation", "pooling", "convention", "margin",
    "scales", "scale_side", "scale_ratio", "scale_detail", "pyramid", "optimizer", "schedule",
    "history_size", "preconditioner", "bounds", "tile", "remat", "precision",
}  # fmt: skip
# Part of the objective of a run, but no flags of `evaluate`.
OBJECTIVE_OF_RUNS = {"strength", "upscale", "margin", "pyramid"}


def in_exactly_one(*lists):
    names = [name for names in lists for name in names]
    return len(names) == len(set(names)) and set(names) == ALL


def test_a_setting_is_a_number_of_programs_or_their_structure_or_neither():
    assert in_exactly_one(Numbers._fields, HOST_SETTINGS, STRUCTURE)


def test_a_setting_is_of_the_objective_or_of_the_optimization():
    # `evaluate` has the flag `tile` for memory; the objective is the same with it.
    assert in_exactly_one(set(OBJECTIVE) - {"tile"}, OBJECTIVE_OF_RUNS, OPTIMIZATION_SETTINGS)


def test_the_suffixes_are_those_of_the_formats_that_are_read():
    assert set(images.WRITE_FORMATS.values()) == set(images.READ_FORMATS)
    assert set(images.SUFFIXES) == set(images.WRITE_FORMATS)
