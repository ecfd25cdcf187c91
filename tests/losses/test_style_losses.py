"""Style losses against NumPy and SciPy in float64, their gradients, blends and batches."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_image
from scipy.linalg import sqrtm

import jaxstyle
from jaxstyle import JaxstyleError, Recipe
from jaxstyle.config import choices
from jaxstyle.config.layers import format_layers
from jaxstyle.losses import covariance as covariances
from jaxstyle.losses.nearest import BLOCK
from jaxstyle.losses.sliced_wasserstein import quantiles
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.wasserstein import root_trace

H, W, C = 7, 5, 4
FAMILIES = [name for name, loss in STYLE_LOSSES.items() if not loss.is_joint]


def features(height=H, width=W, channels=C, seed=0):
    """Correlated channels. Without a ReLU, whose zeros are ties where sorting has no slope."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(channels, channels))
    return (rng.normal(size=(height, width, channels)) @ mix + 0.3).astype(np.float32)


def flat(f):
    return np.asarray(f, np.float64).reshape(-1, f.shape[-1])


def gram(f, t):
    f, t = flat(f), flat(t)
    return np.mean((f.T @ f / f.size - t.T @ t / t.size) ** 2)


def covariance(f, t):
    mine, theirs = (np.cov(flat(x).T, bias=True) / x.shape[-1] for x in (f, t))
    return np.mean((mine - theirs) ** 2)


def moments(f, t):
    f, t = flat(f), flat(t)
    return np.mean((f.mean(0) - t.mean(0)) ** 2 + (f.std(0) - t.std(0)) ** 2)


def wasserstein(f, t):
    f, t = flat(f), flat(t)
    a, b = (np.cov(x.T, bias=True) + 1e-4 * np.eye(x.shape[1]) for x in (f, t))
    root = np.real(sqrtm(b))
    spread = np.trace(a + b - 2 * np.real(sqrtm(root @ a @ root)))
    return (np.sum((f.mean(0) - t.mean(0)) ** 2) + spread) / f.shape[1]


def iterated_root(a):
    y, z = a / np.linalg.norm(a), np.eye(len(a))
    for _ in range(12):
        t = (3 * np.eye(len(a)) - z @ y) / 2
        y, z = y @ t, t @ z
    return y * np.sqrt(np.linalg.norm(a))


def iterated_wasserstein(f, t):
    f, t = flat(f), flat(t)
    a, b = (np.cov(x.T, bias=True) + 1e-4 * np.eye(x.shape[1]) for x in (f, t))
    root = iterated_root(b)
    spread = np.trace(a + b - 2 * iterated_root(root @ a @ root))
    return (np.sum((f.mean(0) - t.mean(0)) ** 2) + spread) / f.shape[1]


def sliced_wasserstein(f, t):
    """With the same directions, one at a time; quantiles by NumPy's interpolation."""
    channels = f.shape[-1]
    key = jax.random.key(channels, impl="threefry2x32")
    normal = jax.random.normal(key, (channels, channels), np.float32)
    directions = np.linalg.qr(np.asarray(normal, np.float64))[0]
    f, t, total = flat(f), flat(t), 0.0
    for direction in directions.T:
        mine, theirs = np.sort(f @ direction), np.sort(t @ direction)
        at = (np.arange(len(mine)) + 0.5) / len(mine)
        theirs = np.interp(at, (np.arange(len(theirs)) + 0.5) / len(theirs), theirs)
        total += np.mean((mine - theirs) ** 2) / channels
    return total


def patches(f, t):
    def cut(x):
        h, w, _ = x.shape
        x = np.asarray(x, np.float64)
        return [x[i : i + 3, j : j + 3].ravel() for i in range(h - 2) for j in range(w - 2)]

    total, mine, theirs = 0.0, cut(f), cut(t)
    for patch in mine:
        best = max(theirs, key=lambda other: patch @ other / max(np.linalg.norm(other), 1e-12))
        total += np.mean((patch - best) ** 2) / len(mine)
    return total


REFERENCES = {
    "gram": gram,
    "covariance": covariance,
    "moments": moments,
    "wasserstein": wasserstein,
    "wasserstein-newton-schulz": iterated_wasserstein,
    "sliced-wasserstein": sliced_wasserstein,
    "patches": patches,
}
assert set(REFERENCES) == set(FAMILIES)


@partial(jax.jit, static_argnums=0)
def value_and_grad(name, f, t):
    """Of the distance between two feature maps by the first."""
    family = STYLE_LOSSES[name]
    target = family.target(family.statistics(t))
    return jax.value_and_grad(lambda f: family.distance(family.statistics(f), target))(f)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(H, W), (6, 9)])
def test_the_distance_is_the_formulas(name, size):
    f, t = features(), features(*size, seed=1)
    ours, _ = value_and_grad(name, f, t)
    assert ours.dtype == jnp.float32 and ours.shape == ()
    np.testing.assert_allclose(ours, REFERENCES[name](f, t), rtol=1e-4)


@pytest.mark.parametrize("name", [f for f in FAMILIES if f != "wasserstein-newton-schulz"])
def test_the_style_itself_is_at_no_distance(name):
    f = features()
    assert abs(value_and_grad(name, f, f)[0]) < 1e-5
    assert value_and_grad(name, f, features(seed=1))[0] > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_is_that_of_finite_differences(name):
    f, t = features(), features(6, 9, seed=1)
    gradient = np.asarray(value_and_grad(name, f, t)[1])
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = rng.normal(size=f.shape)
        direction /= np.linalg.norm(direction)
        h = 1e-5
        slope = (
            REFERENCES[name](f.astype(np.float64) + h * direction, t)
            - REFERENCES[name](f.astype(np.float64) - h * direction, t)
        ) / (2 * h)
        scale = np.linalg.norm(gradient) / np.sqrt(f.size)
        assert np.vdot(gradient, direction) == pytest.approx(slope, rel=2e-3, abs=2e-3 * scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_vmap_is_a_loop(name):
    t = features(6, 9, seed=1)
    several = np.stack([features(seed=seed) for seed in range(2, 5)])
    batched = jax.vmap(lambda f, t: value_and_grad(name, f, t), (0, None))
    values, gradients = jax.jit(batched)(several, t)
    for k, f in enumerate(several):
        alone, gradient = value_and_grad(name, f, t)
        np.testing.assert_allclose(values[k], alone, rtol=1e-4)
        largest = np.abs(gradient).max()
        np.testing.assert_allclose(gradients[k], gradient, rtol=1e-3, atol=1e-3 * largest)


def test_the_matrix_root_holds_where_positions_are_fewer_than_channels():
    """The covariance is then singular but for the ridge; float64 says what is right."""
    f, t = features(3, 3, 24) * 10, features(4, 4, 24, seed=1) * 10
    ours, gradient = value_and_grad("wasserstein", f, t)
    # Its least eigenvalues are raised by 2e-7 of the trace.
    np.testing.assert_allclose(ours, wasserstein(f, t), rtol=1e-3)
    direction = np.asarray(gradient, np.float64)
    direction /= np.linalg.norm(direction)
    up, down = (wasserstein(f + sign * 1e-3 * direction, t) for sign in (1, -1))
    assert np.linalg.norm(gradient) == pytest.approx((up - down) / 2e-3, rel=1e-2)


def test_the_matrix_root_of_a_constant_map_is_finite():
    ours, gradient = jax.value_and_grad(lambda a: root_trace(a, jnp.zeros((3, 3))))(
        jnp.zeros((3, 3))
    )
    assert np.isfinite(ours) and np.isfinite(gradient).all()


def test_iterated_roots_that_have_not_converged():
    """As the program that they follow: a distribution is then at a distance from itself."""
    f = features(9, 9, 64) @ np.diag(10.0 ** np.linspace(-3, 1, 64)).astype(np.float32)
    ours, gradient = value_and_grad("wasserstein-newton-schulz", f, f)
    np.testing.assert_allclose(ours, iterated_wasserstein(f, f), rtol=1e-3)
    assert ours > 1e-3 and np.isfinite(gradient).all()


def test_patches_are_compared_block_by_block():
    side = int(np.sqrt(BLOCK)) + 4
    f, t = features(4, 4, 2), features(side, side, 2, seed=1)
    assert (side - 2) ** 2 > BLOCK
    np.testing.assert_allclose(value_and_grad("patches", f, t)[0], patches(f, t), rtol=1e-4)


def test_quantiles_are_interpolated_both_ways():
    ordered = jnp.sort(jnp.asarray(features(4, 3)).reshape(-1, C), axis=0)
    np.testing.assert_array_equal(quantiles(ordered, 12), ordered)
    for count in (5, 31):
        at = (np.arange(count) + 0.5) / count
        wanted = [np.interp(at, (np.arange(12) + 0.5) / 12, column) for column in ordered.T]
        np.testing.assert_allclose(
            quantiles(ordered, count), np.stack(wanted, 1), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_blends(name):
    family = STYLE_LOSSES[name]
    mine, one, other = map(family.statistics, (features(), features(seed=1), features(6, 9)))
    even = family.blend([one, other], [0.5, 0.5])
    assert np.isfinite(family.distance(mine, family.target(even)))
    if name == "patches":
        # Of all patches together the best is as good as any.
        assert even.shape[0] == one.shape[0] + other.shape[0]
        with pytest.raises(JaxstyleError, match=r"^style_blend: \[0.25, 0.75\].*equal weights"):
            family.blend([one, other], [0.25, 0.75])
        return
    first = family.blend([one, one], [0.25, 0.75])
    first, one = (family.distance(mine, family.target(of)) for of in (first, one))
    np.testing.assert_allclose(first, one, rtol=1e-4)


def test_a_map_without_patches_is_refused():
    with pytest.raises(JaxstyleError, match="^style_layers: a map of 2x9 .*patches"):
        STYLE_LOSSES["patches"].statistics(jnp.ones((9, 2, 3)))


@pytest.mark.parametrize(
    "settings",
    [
        {"style_loss": "patches"},
        {"style_loss": "sliced-wasserstein"},
        {"pooling": "max-ceil"},
    ],
    ids=str,
)
def test_what_needs_the_whole_image_refuses_tiles(settings):
    with pytest.raises(JaxstyleError, match="^tile: 64 .*use tile 0"):
        Recipe(tile=64, **settings)


def test_a_gram_matrix_belongs_to_the_gram_loss():
    recipe = jaxstyle.presets["keras"]
    with pytest.raises(JaxstyleError, match="^style_loss: 'moments' "):
        dataclasses.replace(recipe, style_loss="moments")


@pytest.mark.parametrize("name", ["wasserstein", "sliced-wasserstein", "patches"])
def test_losses_descend_in_a_batch(name, make_network, make_image):
    recipe = Recipe(
        style_loss=name,
        content_layers="relu2_2",
        style_layers="relu1_1,relu2_1",
        style_weight=1.0,
        steps=4,
        size=0,
        tv_weight=1e-5,
        bounds="none",
    )
    results = jaxstyle.stylize_batch(
        make_image(20, 24), make_image(28, 22, seed=1),
        recipe=recipe, network=make_network(blocks=2), starts=["content", "noise"],
    )  # fmt: skip
    for result in results:
        assert result.loss < result.initial_loss and np.isfinite(result.image).all()
    assert results[0].terms.style < results[0].initial_terms.style


def test_the_configuration_names_the_style_losses_and_their_properties():
    assert tuple(STYLE_LOSSES) == choices.STYLE_LOSSES
    means = tuple(n for n, loss in STYLE_LOSSES.items() if loss.is_mean_over_positions)
    assert means == choices.POSITION_MEAN_LOSSES


def test_the_help_has_the_default_layers():
    help = {f.name: f.metadata["help"] for f in dataclasses.fields(Recipe)}["style_layers"]
    default, gram = STYLE_LOSSES[Recipe().style_loss], STYLE_LOSSES["gram"]
    for defaults in (default.normalized, default.unnormalized, gram.unnormalized):
        assert f"default: {format_layers(defaults.layers)}, with the weights" in help
    weights = ", ".join(f"{weight:g}" for _, weight in gram.normalized.layers)
    assert f"with the weights {weights} if --style-loss is gram" in help


def _flat_images():
    sky = np.broadcast_to(np.float32([0.5, 0.7, 0.95]), (64, 64, 3)).copy()
    square = sky.copy()
    square[24:40, 24:40] = [0.9, 0.1, 0.1]
    gradient = (sky + np.linspace(0, 0.05, 64)[:, None, None]).clip(0, 1).astype(np.float32)
    return {"sky": sky, "white": np.ones_like(sky), "square": square, "gradient": gradient}


@pytest.mark.parametrize("style_loss", ["wasserstein", "covariance"])
@pytest.mark.parametrize("image", _flat_images())
def test_plain_images_have_a_finite_loss_and_gradient(style_loss, image):
    """Their second moments are those of the means but for the last digits of float32."""
    network = jaxstyle.load_network("medium")
    recipe = Recipe(style_loss=style_loss, size=64, steps=1, style_layers="relu1_1,relu3_1")
    flat = _flat_images()[image]
    problem = jaxstyle.prepare(flat, make_image(64, 64), recipe=recipe, network=network)
    objective = jaxstyle.make_objective(network, problem.targets, problem.recipe)
    (loss, _), gradient = jax.value_and_grad(objective, has_aux=True)(jnp.asarray(flat))
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert problem.recipe.style_weight != STYLE_LOSSES[style_loss].normalized.weight


@pytest.mark.parametrize("style_loss", ["wasserstein", "covariance", "moments", "gram"])
@pytest.mark.parametrize("kind", ["dead channels", "one color", "features"])
def test_an_image_is_at_no_distance_from_itself(style_loss, kind):
    loss = STYLE_LOSSES[style_loss]
    rng = np.random.default_rng(0)
    features = (20 * np.maximum(rng.normal(1, 2, (16, 16, 64)), 0)).astype(np.float32)
    if kind == "dead channels":
        features[..., 16:] = 0
    elif kind == "one color":
        features[:] = features[0, 0]
    statistics = loss.statistics(jnp.asarray(features))
    distance = float(loss.distance(statistics, loss.target(statistics)))
    scale = float(jnp.mean(jnp.square(features)))
    # Not below 0 but for rounding.
    assert -2e-6 * scale <= distance <= 1e-3 * scale


def test_the_covariance_of_parts_is_that_of_the_whole():
    rng = np.random.default_rng(1)
    features = rng.normal(3, 1, (8, 6, 5)).astype(np.float32)
    whole = covariances.covariance(covariances.centered_moments(jnp.asarray(features)))
    np.testing.assert_allclose(
        whole, np.cov(features.reshape(-1, 5).T, bias=True), rtol=1e-4, atol=1e-5
    )
    halves = [
        covariances.centered_moments(jnp.asarray(features[rows]))
        for rows in (slice(0, 4), slice(4, 8))
    ]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    np.testing.assert_allclose(covariances.covariance(mean), whole, rtol=1e-4, atol=1e-5)
    # Positions that are masked out, as those of a tile beyond the image.
    weights = np.zeros((8, 6, 1), np.float32)
    weights[:4] = 2
    masked = covariances.centered_moments(jnp.asarray(features), weights=jnp.asarray(weights))
    np.testing.assert_allclose(
        covariances.covariance(masked), covariances.covariance(halves[0]), rtol=1e-4, atol=1e-5
    )


def test_second_derivatives_are_finite_where_channels_are_dead():
    loss = STYLE_LOSSES["wasserstein"]
    rng = np.random.default_rng(2)
    features, style = (np.maximum(rng.normal(size=(6, 6, 6)), 0).astype(np.float32) for _ in "ab")
    features[..., 3:] = style[..., 3:] = 0
    target = loss.target(loss.statistics(jnp.asarray(style)))
    of = jax.grad(lambda f: loss.distance(loss.statistics(f), target))
    direction = jnp.asarray(rng.normal(size=features.shape), jnp.float32)
    assert np.isfinite(jax.jvp(of, (jnp.asarray(features),), (direction,))[1]).all()
