"""The cost of a step, and what `plan --target` says of it."""

import dataclasses
import json

import pytest
from helpers import STYLE_LOSS

from jaxstyle import Recipe
from jaxstyle.config.accelerators import ACCELERATORS
from jaxstyle.engine.memory import needed_bytes, padding, problem_of_shapes, program_bytes
from jaxstyle.engine.roofline import map_bytes, step_cost
from jaxstyle.losses.resolve import resolve_recipe

SIDES = 64, 96


@pytest.fixture(scope="module")
def recipe(network):
    asked = Recipe(
        scales=1,
        margin=0,
        pyramid=1,
        style_layers="relu5_1",
        style_loss=STYLE_LOSS,
        content_layers="relu4_2",
    )
    return resolve_recipe(asked, network)


def convolutions(network, height, width):
    """Operations of the forward pass in convolutions: two for each multiplication and addition."""
    total = 0
    for layer, params in network.params.items():
        side, _, channels, filters = params["kernel"].shape
        halved = 2 ** (int(layer[4]) - 1)
        total += 2 * side**2 * channels * filters * (height // halved) * (width // halved)
    return total


def test_operations_are_those_of_a_forward_and_a_backward_pass(make_network, recipe):
    network = make_network(blocks=5)
    problem = problem_of_shapes(*SIDES, recipe=recipe, network=network)
    # Nothing is propagated to the input by way of layers above relu5_1, and the network ends there.
    last = {name: p for name, p in network.params.items() if name <= "conv5_1"}
    both = 2 * convolutions(network.replace(params=last), *SIDES)
    found = step_cost(problem, ACCELERATORS["h100"])
    # Poolings, ReLUs and losses add to narrow convolutions.
    assert both < found.flops < 1.5 * both


def test_batches_and_precision(network, recipe):
    one = step_cost(problem_of_shapes(*SIDES, recipe=recipe, network=network), ACCELERATORS["t4"])
    four = problem_of_shapes(*SIDES, recipe=recipe, network=network, batch=4)
    assert step_cost(four, ACCELERATORS["t4"]).flops == pytest.approx(4 * one.flops)
    assert one.seconds == pytest.approx(
        max(one.flops / ACCELERATORS["t4"].tf32, one.bytes / ACCELERATORS["t4"].bandwidth)
    )
    half = dataclasses.replace(recipe, precision="bfloat16")
    fewer = step_cost(problem_of_shapes(*SIDES, recipe=half, network=network), ACCELERATORS["t4"])
    assert fewer.bytes < one.bytes


def test_a_target_needs_no_kernels_of_cpus(make_network, recipe):
    network = make_network(blocks=5, widths=(64, 64, 64, 64, 64))
    here, there = (
        needed_bytes(*SIDES, recipe=recipe, network=network, accelerator=target)
        for target in (None, ACCELERATORS["h100"])
    )
    # At least the kernels of two layers, which are 4 times as large.
    assert here - there > 2 * 4 * 4 * 9 * 64**2


def test_a_tpu_pads_channels(make_network, recipe):
    """Narrow maps take the memory of 128 channels; maps as wide as that take no more."""
    narrow, wide = (
        problem_of_shapes(
            *SIDES, recipe=recipe, network=make_network(blocks=5, widths=(width,) * 5)
        )
        for width in (16, 128)
    )
    gpu, tpu = (program_bytes(narrow, accelerator=ACCELERATORS[n]) for n in ("h100", "tpu-v5e"))
    maps = map_bytes(narrow.network, recipe, *SIDES)
    # The maps and their gradients at least become 8 times as large.
    assert 7 * maps < tpu - gpu < 7 * gpu
    assert padding(wide, 10**9, 128) == 0


def test_the_command(run):
    layers = "--style-layers", "relu1_1,relu2_1", "--content-layers", "relu2_1"
    asked = "plan", "--size", "128", "--weights", "compact", *layers, "--target"
    code, out, _ = run(*asked, "t4", "--json")
    report = json.loads(out)
    assert code == 0 and report["free"] == 16 * 10**9 and report["fits"]
    assert report["target"] == "t4" and report["step"]["seconds"] > 0
    code, out, _ = run(*asked, "h100")
    assert code == 0 and "on h100, by its published peaks" in out
    code, _, err = run(*asked, "abacus")
    assert code == 2 and "abacus" in err
