"""Losses of hypercolumns, `remd` and `neural-neighbor`, against NumPy and SciPy in float64."""

import dataclasses
import importlib
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, compute_targets, make_objective
from jaxstyle.losses.columns import MOST_POSITIONS, bounded_columns
from jaxstyle.losses.nearest import BLOCK, most_similar
from jaxstyle.losses.remd import PALETTE, RemdStatistics
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.style_losses import STYLE_LOSSES

WEIGHTS = {"relu1_1": 1.0, "relu3_1": 0.5}
NAMES = [name for name, loss in STYLE_LOSSES.items() if loss.is_joint]


def drawn(height, width, seed):
    """Features of two layers and an image, `height` and `width` in cells of 4 pixels."""
    rng = np.random.default_rng(seed)
    sizes = {"relu1_1": (4 * height, 4 * width, 3), "relu3_1": (height, width, 5)}
    maps = {
        layer: np.abs(rng.normal(size=size)).astype(np.float32) for layer, size in sizes.items()
    }
    return maps, rng.random((4 * height, 4 * width, 3), np.float32)


def cells(x, side=4):
    h, w, c = np.shape(x)
    return np.asarray(x, np.float64).reshape(h // side, side, w // side, side, c).mean((1, 3))


def columns(maps, divided):
    parts = [
        (cells(act) if layer == "relu1_1" else np.asarray(act, np.float64))
        * WEIGHTS[layer] / (act.shape[-1] if divided else 1)
        for layer, act in maps.items()
    ]  # fmt: skip
    joined = np.concatenate(parts, -1)
    return joined.reshape(-1, joined.shape[-1])


def neural_neighbor(mine, theirs):
    x, s = columns(mine[0], True), columns(theirs[0], True)
    nearest = cdist(x - x.mean(0), s - s.mean(0), "cosine").argmin(1)
    return np.mean(np.diag(cdist(x, s[nearest], "cosine")))


def remd(mine, theirs):
    def relaxed(distances):
        return max(distances.min(0).mean(), distances.min(1).mean())

    (x, s), pixels = ([columns(i[0], False) for i in (mine, theirs)], (mine[1], theirs[1]))
    colors = [cells(image).reshape(-1, 3) for image in pixels]
    moments = np.abs(x.mean(0) - s.mean(0)).mean()
    moments += np.abs(np.cov(x.T, bias=True) - np.cov(s.T, bias=True)).mean()
    return relaxed(cdist(x, s, "cosine")) + moments + PALETTE * relaxed(cdist(*colors))


REFERENCES = {"neural-neighbor": neural_neighbor, "remd": remd}


def distance(name, mine, theirs):
    loss = STYLE_LOSSES[name]
    both = (loss.statistics(maps, WEIGHTS, image) for maps, image in (mine, theirs))
    return loss.distance(next(both), loss.target(next(both)))


@partial(jax.jit, static_argnums=0)
def value_and_grad(name, mine, theirs):
    return jax.value_and_grad(partial(distance, name))(mine, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_the_formulas(name):
    mine, theirs = drawn(6, 5, 0), drawn(4, 7, 1)
    value, gradient = value_and_grad(name, mine, theirs)
    assert value.dtype == jnp.float32 and value.shape == ()
    np.testing.assert_allclose(value, REFERENCES[name](mine, theirs), rtol=1e-4)
    np.testing.assert_allclose(value, distance(name, mine, theirs), rtol=1e-5)
    assert abs(value_and_grad(name, mine, mine)[0]) < 2e-4
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), mine)
        up, down = (
            REFERENCES[name](
                jax.tree.map(lambda x, d, h=h: x.astype(np.float64) + h * d, mine, direction),
                theirs,
            )
            for h in (1e-6, -1e-6)
        )
        along = float(sum(map(np.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction))))
        length = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
        slope = pytest.approx((up - down) / 2e-6, rel=2e-3, abs=2e-3 * float(length))
        assert along == slope


@pytest.mark.parametrize("name", NAMES)
def test_a_large_style_counts_by_evenly_spaced_positions(name, monkeypatch):
    mine, theirs = drawn(6, 5, 0), drawn(4, 8, 1)
    module = importlib.import_module(STYLE_LOSSES[name].distance.__module__)
    whole = distance(name, mine, theirs)
    monkeypatch.setattr(module, "MOST_STYLE", 16)
    fewer = distance(name, mine, theirs)
    loss = STYLE_LOSSES[name]
    target = loss.target(loss.statistics(theirs[0], WEIGHTS, theirs[1]))
    full = columns(theirs[0], name == "neural-neighbor")
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    np.testing.assert_allclose(target.columns, full[1::2], rtol=1e-4)
    # Fewer to choose from: farther away.
    assert fewer > whole


@pytest.mark.parametrize("name", NAMES)
def test_vmap_is_a_loop(name):
    theirs = drawn(4, 7, 1)
    several = jax.tree.map(lambda *leaves: np.stack(leaves), drawn(6, 5, 2), drawn(6, 5, 3))
    values, gradients = jax.jit(
        jax.vmap(lambda mine, theirs: value_and_grad(name, mine, theirs), (0, None))
    )(several, theirs)
    for k in range(2):
        mine = jax.tree.map(lambda leaf, k=k: leaf[k], several)
        value, gradient = value_and_grad(name, mine, theirs)
        np.testing.assert_allclose(values[k], value, rtol=1e-5)
        for batched, alone in zip(
            jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True
        ):
            np.testing.assert_allclose(
                batched[k], alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max()
            )


def test_the_most_similar_is_found_block_by_block():
    rng = np.random.default_rng(0)
    # All products are negative, below those of what fills the last block.
    a, b = rng.normal(size=(50, 6)) - 9, rng.normal(size=(2 * BLOCK + 77, 6)) + 9
    of_a, of_b = jax.jit(most_similar)(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_array_equal(of_a, (a @ b.T).argmax(1))
    np.testing.assert_array_equal(of_b, (a @ b.T).argmax(0))


def test_positions_are_bounded():
    maps = {"relu3_1": jnp.ones((132, 141, 2))}
    h, w, c = bounded_columns(maps, {"relu3_1": 1.0}).shape
    assert (h, w, c) == (66, 70, 2) and h * w <= MOST_POSITIONS


@pytest.mark.parametrize("name", NAMES)
def test_blends_join_the_styles(name):
    loss = STYLE_LOSSES[name]
    one, other = (
        loss.statistics(maps, WEIGHTS, image) for maps, image in (drawn(3, 4, 0), drawn(5, 2, 1))
    )
    both = loss.blend([one, other], [0.5, 0.5])
    assert (both.columns if isinstance(both, RemdStatistics) else both).shape[0] == 12 + 10
    with pytest.raises(JaxstyleError, match=rf"^style_blend: .*'{name}'.*equal weights"):
        loss.blend([one, other], [0.25, 0.75])


def recipe_of(name, network, **settings):
    layers = "relu1_1,relu2_1:2,relu3_1"
    recipe = Recipe(style_loss=name, style_layers=layers, content_layers="relu2_2", **settings)
    return resolve_recipe(recipe, network)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pyramid", [1, 2])
def test_the_objective_compares_the_images(name, pyramid, make_network, make_image):
    network = make_network(blocks=3)
    recipe = recipe_of(name, network, pyramid=pyramid, style_weight=3.0, turn_style=True)
    image, content, style = (
        make_image(*size, seed=seed)
        for seed, size in enumerate([(48, 40), (48, 40), (40, 56)], start=1)
    )
    targets = compute_targets(network, content, [style], recipe)
    objective = make_objective(network, targets, recipe)
    (_, terms), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(image)
    assert np.isfinite(gradient).all() and jnp.linalg.norm(gradient) > 0
    np.testing.assert_allclose(objective(image)[1].style, terms.style, rtol=1e-4)
    loss, weights, wanted = STYLE_LOSSES[name], dict(recipe.style_layers), []
    for level in range(pyramid):

        def statistics(x, level=level):
            x = cells(x, 2).astype(np.float32) if level else x
            maps = jaxstyle.features(network, x, tuple(weights))
            return loss.statistics(maps, weights, x)

        turned = [statistics(np.rot90(style, k)) for k in range(4)]
        target = loss.target(loss.blend(turned, [0.25] * 4))
        wanted.append(loss.distance(statistics(image), target))
    pixels = [4.0**-level for level in range(pyramid)]
    np.testing.assert_allclose(terms.style, 3 * np.average(wanted, weights=pixels), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_descends_from_any_start(name, make_network, make_image):
    network = make_network(blocks=3)
    recipe = dataclasses.replace(recipe_of(name, network), steps=4, size=0, scales=1)
    results = jaxstyle.stylize_batch(
        make_image(32, 40), make_image(44, 36, seed=1),
        recipe=recipe, network=network, starts=["content", "noise"],
    )  # fmt: skip
    for result in results:
        assert result.loss < result.initial_loss and np.isfinite(result.image).all()


def test_what_does_not_go_with_them():
    for name in NAMES:
        with pytest.raises(JaxstyleError, match=f"^tile: 64 .*'{name}'"):
            Recipe(style_loss=name, tile=64)
    with pytest.raises(JaxstyleError, match="^turn_style: .*masks"):
        Recipe(turn_style=True, mask=[("-", "-")])


def test_turning_the_style_is_for_every_loss(make_network, make_image):
    network, style = make_network(blocks=2), make_image(24, 28)
    recipe = Recipe(
        style_loss="gram", style_layers="relu2_1", content_layers="relu1_1", turn_style=True,
        margin=0,
    )  # fmt: skip
    found = compute_targets(network, make_image(24, 24), [style], recipe).style["relu2_1"]
    turned = [
        jaxstyle.gram_matrix(jaxstyle.features(network, np.rot90(style, k), ["relu2_1"])["relu2_1"])
        for k in range(4)
    ]
    np.testing.assert_allclose(found, np.mean(turned, 0), rtol=1e-4)


def test_a_run_and_a_grid(tmp_path, stylize, run, files):
    layers = ["--style-layers", "relu1_1,relu2_1", "--style-loss", "neural-neighbor"]
    stylize(tmp_path / "out.png", *layers, "--turn-style", "--report", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recipe"]["turn_style"] is True and report["terms"]["style"] > 0
    assert report["loss"] < report["initial"]["loss"]
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'[base]\ncontent = "{files["content"]}"\nstyle = "{files["style"]}"\nsteps = 2\n'
        f'weights = "{files["weights"]}"\ncontent_layers = "relu2_2"\n[grid]\n'
        'style_loss = ["remd", "neural-neighbor"]\n'
        'style_layers = ["relu1_1", "relu1_1:2,relu2_1"]\n'
    )
    code, _, err = run("grid", grid, "-o", tmp_path / "grid")
    assert code == 0, err
    assert len((tmp_path / "grid" / "results.csv").read_text().splitlines()) == 5
