"""Self-similarity and Laplacian against NumPy and SciPy in float64, alone and in the objective."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate
from scipy.spatial.distance import cdist

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, compute_targets, make_objective
from jaxstyle.config import choices
from jaxstyle.config.content_terms import split_content_losses
from jaxstyle.losses.columns import hypercolumns, sample_positions
from jaxstyle.losses.content import DESCRIPTOR_LOSSES, content_loss_weights
from jaxstyle.losses.laplacian import laplacian_distance, pooled_laplacian
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.self_similarity import self_similarity, self_similarity_distance

SIZES = {"relu1_1": (24, 32, 3), "relu3_1": (6, 8, 5), "relu4_1": (3, 4, 6)}
WEIGHTS = {"relu1_1": 1.0, "relu3_1": 0.5, "relu4_1": 2.0}


def maps(seed=0):
    rng = np.random.default_rng(seed)
    return {
        layer: np.abs(rng.normal(size=size)).astype(np.float32) for layer, size in SIZES.items()
    }


def joined(maps):
    """Hypercolumns at a quarter of the size: means of 4x4, as it is, and twice the size."""
    h, w = SIZES["relu3_1"][:2]
    found = np.zeros((h, w, 0))
    for layer, act in maps.items():
        act = np.asarray(act, np.float64)
        if layer == "relu1_1":
            act = np.stack(
                [
                    [act[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((0, 1)) for j in range(w)]
                    for i in range(h)
                ]
            )
        if layer == "relu4_1":
            for axis, size in ((0, h), (1, w)):
                at = np.clip((np.arange(size) + 0.5) / 2 - 0.5, 0, act.shape[axis] - 1)
                low = np.floor(at).astype(int)
                high = np.minimum(low + 1, act.shape[axis] - 1)
                part = np.expand_dims(at - low, (1, 2) if axis == 0 else (0, 2))
                act = act.take(low, axis) * (1 - part) + act.take(high, axis) * part
        found = np.concatenate([found, WEIGHTS[layer] * act], -1)
    return found.reshape(h * w, -1)


def similarity(f, t):
    mine, theirs = (cdist(joined(x), joined(x), "cosine") for x in (f, t))
    difference = np.abs(mine / mine.sum(0) - theirs / theirs.sum(0))
    return len(mine) * difference.mean()


def ours(f, t):
    both = (self_similarity(x, WEIGHTS, None) for x in (f, t))
    return self_similarity_distance(*both)


def laplacian(x, t):
    kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], float)

    def pooled(image):
        image = np.asarray(image, np.float64)
        found = sum(correlate(image[..., k], kernel, mode="nearest") for k in range(3))
        h, w = (side // 4 for side in found.shape)
        return np.array(
            [
                [found[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for j in range(w)]
                for i in range(h)
            ]
        )

    return np.mean((pooled(x) - pooled(t)) ** 2)


def our_laplacian(x, t):
    return laplacian_distance(*(pooled_laplacian({}, {}, i) for i in (x, t)))


def test_hypercolumns_are_joined_at_a_quarter_of_the_size():
    np.testing.assert_allclose(
        hypercolumns(maps(), WEIGHTS).reshape(48, -1), joined(maps()), rtol=1e-5
    )


def test_an_odd_row_is_left_out_or_repeated():
    odd = {"relu2_1": jnp.ones((7, 5, 2)), "relu4_1": jnp.ones((1, 1, 3))}
    assert hypercolumns(odd, dict.fromkeys(odd, 1.0)).shape == (3, 2, 5)


@pytest.mark.parametrize("size", [(5, 7), (66, 50), (3, 900), (700, 2)])
def test_sampled_positions_are_few_and_evenly_spaced(size):
    at = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    found = np.asarray(sample_positions(jnp.asarray(at), 1024))
    assert 400 < len(found) <= 1024 or len(found) == size[0] * size[1]
    assert len(np.unique(found, axis=0)) == len(found)
    for axis in (0, 1):
        steps = np.diff(np.unique(found[:, axis]))
        assert steps.size == 0 or steps.max() - steps.min() <= 1


def test_positions_of_a_large_image_are_compared_with_regions():
    rng = np.random.default_rng(0)
    f, t = (np.abs(rng.normal(size=(34, 40, 3))).astype(np.float32) for _ in range(2))

    def shares(x):
        x = x.astype(np.float64)
        # 17 x 20 are more than 256; cells of 3 x 3 leave 11 x 13.
        regions = np.array(
            [
                x[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean((0, 1))
                for i in range(11)
                for j in range(13)
            ]
        )
        distances = cdist(x.reshape(-1, 3), regions, "cosine")
        return distances / distances.sum(0)

    wanted = 34 * 40 * np.abs(shares(f) - shares(t)).mean()
    weights = {"relu3_1": 1.0}
    both = (self_similarity({"relu3_1": jnp.asarray(x)}, weights, None) for x in (f, t))
    np.testing.assert_allclose(self_similarity_distance(*both), wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["self-similarity", "laplacian"])
def test_values_gradients_jit_and_vmap(name, make_image):
    if name == "laplacian":
        f, t = make_image(13, 18), make_image(13, 18, seed=1)
        function, reference = our_laplacian, laplacian
    else:
        f, t, function, reference = maps(), maps(1), ours, similarity
    compiled = jax.jit(jax.value_and_grad(function))
    value, gradient = compiled(f, t)
    assert value.dtype == jnp.float32 and value.shape == ()
    np.testing.assert_allclose(value, reference(f, t), rtol=1e-4)
    np.testing.assert_allclose(value, function(f, t), rtol=1e-5)
    assert abs(function(f, f)) < 1e-6
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), f)
        moved = [
            jax.tree.map(lambda x, d, h=h: x.astype(np.float64) + h * d, f, direction)
            for h in (1e-6, -1e-6)
        ]
        slope = (reference(moved[0], t) - reference(moved[1], t)) / 2e-6
        along = sum(map(np.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))
        length = float(np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient))))
        assert along == pytest.approx(slope, rel=2e-3, abs=2e-3 * length)
    several = jax.tree.map(lambda *leaves: np.stack(leaves), f, t)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(function), (0, None)))(several, t)
    np.testing.assert_allclose(values, [value, 0], rtol=1e-4, atol=1e-6)
    for one, alone in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(one[0], alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max())


@pytest.mark.parametrize("content_loss", ["self-similarity:3", "features:2,laplacian:50"])
def test_the_objective_adds_them_up(content_loss, make_network, make_image):
    network = make_network(blocks=3)
    recipe = resolve_recipe(
        Recipe(
            content_loss=content_loss,
            content_layers="relu2_2:0.5,relu3_1",
            style_layers="relu1_1",
            content_weight=4.0,
            margin=8,
        ),
        network,
    )
    image, content = make_image(32, 36, seed=1), make_image(32, 36, seed=2)
    targets = compute_targets(network, content, [make_image(30, 28)], recipe)
    objective = make_objective(network, targets, recipe)
    (_, terms), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(image)
    assert np.isfinite(gradient).all() and jnp.linalg.norm(gradient) > 0
    eager = objective(image)[1]
    np.testing.assert_allclose(np.stack(eager), np.stack(terms), rtol=1e-4)
    batch = jax.jit(jax.vmap(lambda x: objective(x)[1]))(np.stack([content, image]))
    np.testing.assert_allclose(batch.content, [0, terms.content], rtol=1e-4, atol=1e-4)

    if content_loss == "self-similarity:3":
        padded = [np.pad(x, ((8, 8), (8, 20), (0, 0)), mode="symmetric") for x in (image, content)]
        layers = ("relu2_2", "relu3_1")
        found = [jaxstyle.features(network, x, layers) for x in padded]
        weights = {"relu2_2": 0.5, "relu3_1": 1.0}
        both = (self_similarity(f, weights, None) for f in found)
        wanted = 4 * 3 * self_similarity_distance(*both)
    else:
        alone = dataclasses.replace(recipe, content_loss="features")
        targets = compute_targets(network, content, [make_image(30, 28)], alone)
        features = jax.jit(make_objective(network, targets, alone))(image)[1].content
        wanted = 2 * features + 4 * 50 * laplacian(image, content)
    np.testing.assert_allclose(terms.content, wanted, rtol=1e-4)


def test_losses_and_weights():
    assert tuple(DESCRIPTOR_LOSSES) == choices.CONTENT_LOSSES[1:]
    assert content_loss_weights("features:0.5") == {"features": 0.5}
    assert content_loss_weights("laplacian") == {"laplacian": DESCRIPTOR_LOSSES["laplacian"].weight}
    recipe = Recipe(content_loss=" features:1.0 , laplacian")
    assert recipe.content_loss == "features:1,laplacian"
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe
    assert split_content_losses("laplacian:1e3") == {"laplacian": 1000.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("edges", "'edges', which does not exist; choose from features, self-similarity, lapl"),
        ("", "does not exist"),
        ("features,features:2", "twice"),
        ("laplacian:-1", "'-1'.*at least 0"),
        ("laplacian:x", "'x'"),
        ("laplacian:", "''"),
        ("laplacian:nan", "'nan'"),
        (3, "not text"),
    ],
)
def test_what_is_no_content_loss(text, words):
    with pytest.raises(JaxstyleError, match=f"^content_loss: .*{words}"):
        Recipe(content_loss=text)


def test_what_does_not_go_with_them():
    with pytest.raises(JaxstyleError, match=r"^content_mask: 'm.png' .*'laplacian'"):
        Recipe(content_mask="m.png", content_loss="laplacian")
    assert Recipe(content_mask="m.png", content_loss="features:2").content_mask
    with pytest.raises(JaxstyleError, match="^tile: 64 .*'self-similarity'"):
        Recipe(tile=64, content_loss="self-similarity")


def test_a_run_and_its_report(tmp_path, stylize, run, files, objective):
    flags = ["--content-loss", "self-similarity,laplacian:200"]
    stylize(tmp_path / "out.png", *flags, "--report", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recipe"]["content_loss"] == "self-similarity,laplacian:200"
    assert report["loss"] < report["initial"]["loss"] and report["terms"]["content"] > 0
    code, out, _ = run(
        "evaluate", files["content"], "--content", files["content"], "--style", files["style"],
        *objective, *flags, "--json",
    )  # fmt: skip
    assert code == 0 and json.loads(out)["terms"]["content"] < 1e-4
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f'[base]\ncontent = "{files["content"]}"\nstyle = "{files["style"]}"\nsteps = 2\n'
        f'weights = "{files["weights"]}"\nstyle_layers = "relu1_1"\n'
        '[grid]\ncontent_loss = ["features", "laplacian"]\n'
        'content_layers = ["relu2_2", "relu2_1:2"]\n'
    )
    code, _, err = run("grid", grid, "-o", tmp_path / "grid")
    assert code == 0, err
    rows = (tmp_path / "grid" / "results.csv").read_text()
    assert "laplacian" in rows and len(rows.splitlines()) == 5
