"""The objective against the contract's formula in float64 torch, sharing no code with it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import JaxstyleError, Recipe, Terms, compute_targets, make_objective
from jaxstyle.losses.resolve import resolve_recipe

CASES = {
    "default": ("caffe", "zeros", Recipe(style_loss="gram", variation="absolute"), None),
    "weighted": (
        "caffe",
        "zeros",
        Recipe(
            style_loss="gram",
            content_layers="conv2_2:0.5,relu3_1:2",
            style_layers="relu1_1:3,conv2_1:0.25,relu3_1",
            content_weight=3.0,
            style_weight=50.0,
            tv_weight=1e-3,
            variation="absolute",
            pooling="avg",
        ),
        (3.0, 1.0),
    ),
    "torchvision": (
        "torchvision",
        "reflect",
        Recipe(
            style_loss="gram",
            content_layers="relu2_2",
            style_layers="all",
            tv_weight=0.1,
            variation="absolute",
            style_weight=10.0,
        ),
        (0.0, 2.0),
    ),
}


@jax.jit
def value_and_grad(network, targets, recipe, image):
    return jax.value_and_grad(make_objective(network, targets, recipe), has_aux=True)(image)


class Case:
    def __init__(self, name, make_network, make_image):
        convention, padding, recipe, self.blend = CASES[name]
        blocks = 5 if name == "default" else 3
        self.network = make_network(convention=convention, padding=padding, blocks=blocks)
        self.recipe = resolve_recipe(
            dataclasses.replace(recipe, style_blend=self.blend), self.network
        )
        self.image, self.content = make_image(32, 36, seed=1), make_image(32, 36, seed=2)
        # Of different sizes, as paintings are.
        self.styles = [make_image(25, 41, seed=3), make_image(38, 24, seed=4)]
        if self.blend is None:
            self.styles = self.styles[:1]
        self.targets = compute_targets(self.network, self.content, self.styles, self.recipe)
        self.arguments = (self.network, self.targets, self.recipe)


@pytest.fixture(scope="module", params=CASES)
def case(request, make_network, make_image):
    return Case(request.param, make_network, make_image)


@pytest.fixture(scope="module")
def small(make_network, make_image):
    return Case("weighted", make_network, make_image)


def test_loss_terms_and_gradient_match_torch(case, reference):
    torch = reference.torch
    image = torch.from_numpy(case.image).double().requires_grad_()
    wanted = reference.terms(
        case.network,
        case.recipe,
        image,
        torch.from_numpy(case.content),
        [torch.from_numpy(style) for style in case.styles],
        case.blend or [1.0],
    )
    sum(wanted).backward()
    wanted = [float(term.detach()) for term in wanted]
    (loss, terms), grad = value_and_grad(*case.arguments, case.image)
    np.testing.assert_allclose(loss, sum(wanted), rtol=1e-5)
    for name, term, expected in zip(Terms._fields, terms, wanted, strict=True):
        np.testing.assert_allclose(term, expected, rtol=1e-5, err_msg=name)
    theirs = image.grad.numpy()
    assert np.linalg.norm(grad - theirs) < 1e-4 * np.linalg.norm(theirs)
    np.testing.assert_allclose(grad, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_terms_sum_to_the_loss_in_float32(case):
    (loss, terms), grad = value_and_grad(*case.arguments, case.image)
    assert loss.dtype == grad.dtype == jnp.float32 and loss.shape == ()
    assert all(term.dtype == jnp.float32 and term >= 0 for term in terms)
    np.testing.assert_allclose(loss, sum(terms), rtol=1e-6)


def test_gradient_matches_finite_differences(small):
    (_, _), grad = value_and_grad(*small.arguments, small.image)
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = rng.normal(size=small.image.shape).astype(np.float32)
        direction /= np.linalg.norm(direction)
        h = 1e-3
        up, down = (
            value_and_grad(*small.arguments, small.image + sign * h * direction)[0][0]
            for sign in (1, -1)
        )
        slope = float(np.vdot(grad, direction))
        scale = float(np.linalg.norm(grad)) / np.sqrt(grad.size)
        assert (up - down) / (2 * h) == pytest.approx(slope, rel=2e-2, abs=2e-1 * scale)


def test_jit_equals_eager(small):
    objective = make_objective(*small.arguments)
    (loss, terms), _ = value_and_grad(*small.arguments, small.image)
    eager, eager_terms = objective(small.image)
    np.testing.assert_allclose(eager, loss, rtol=1e-5)
    np.testing.assert_allclose(np.stack(eager_terms), np.stack(terms), rtol=1e-5)


def test_vmap_equals_a_loop(small, make_image):
    images = np.stack([make_image(32, 36, seed=seed) for seed in range(10, 13)])
    batched = jax.jit(jax.vmap(value_and_grad, (None, None, None, 0)))
    (losses, terms), grads = batched(*small.arguments, images)
    for k, image in enumerate(images):
        (loss, alone), grad = value_and_grad(*small.arguments, image)
        np.testing.assert_allclose(losses[k], loss, rtol=1e-5)
        np.testing.assert_allclose([t[k] for t in terms], np.stack(alone), rtol=1e-5)
        np.testing.assert_allclose(grads[k], grad, rtol=1e-3, atol=1e-4 * np.abs(grad).max())


def test_the_content_image_has_no_content_term(small):
    (_, terms), _ = value_and_grad(*small.arguments, small.content)
    assert terms.content < 1e-9 and terms.style > 0 and terms.tv > 0


def test_a_style_image_alone_has_no_style_term(small, make_image):
    recipe = dataclasses.replace(small.recipe, style_blend=None)
    style = make_image(32, 36, seed=3)
    targets = compute_targets(small.network, small.content, [style], recipe)
    (_, terms), _ = value_and_grad(small.network, targets, recipe, style)
    assert terms.style < 1e-9 and terms.content > 0


def test_a_weight_of_zero_takes_its_term_away(small):
    recipe = small.recipe
    for name in Terms._fields:
        weights = {f"{other}_weight": 0.0 for other in Terms._fields if other != name}
        alone = type(recipe)(**{**recipe.as_dict(), **weights})
        (loss, terms), _ = value_and_grad(small.network, small.targets, alone, small.image)
        assert loss == getattr(terms, name) > 0
        assert sum(terms) == loss


def test_blends(small):
    def targets(styles, blend=None):
        recipe = dataclasses.replace(small.recipe, style_blend=blend)
        return compute_targets(small.network, small.content, styles, recipe).style

    first, second = (targets([style]) for style in small.styles)
    for blend, share in ((None, 0.5), ([1, 3], 0.25), ([0.0, 2.0], 0.0), ([5, 0], 1.0)):
        both = targets(small.styles, blend)
        assert set(both) == {"relu1_1", "conv2_1", "relu3_1"}
        for layer, gram in both.items():
            mean = share * first[layer] + (1 - share) * second[layer]
            np.testing.assert_allclose(gram, mean, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("count", "blend", "word"),
    [(0, None, "styles"), (2, [1], "1 weights"), (1, [1, 2], "2 weights")],
)
def test_styles_that_do_not_fit(small, count, blend, word):
    recipe = dataclasses.replace(small.recipe, style_blend=blend)
    with pytest.raises(JaxstyleError, match=f"^style.*{word}|^{word}"):
        compute_targets(small.network, small.content, small.styles[:count], recipe)


def test_only_content_or_only_style(small):
    for layers in ({"style_layers": ()}, {"content_layers": ()}):
        recipe = type(small.recipe)(**{**small.recipe.as_dict(), **layers})
        targets = compute_targets(small.network, small.content, small.styles, recipe)
        (loss, terms), _ = value_and_grad(small.network, targets, recipe, small.image)
        (missing,) = {"content", "style"} - {k for k in ("content", "style") if getattr(terms, k)}
        assert f"{missing}_layers" in layers
        assert np.isfinite(loss)


def test_one_layer_may_serve_both_terms(small):
    recipe = resolve_recipe(
        Recipe(content_layers="relu1_1", style_layers="relu1_1:2"), small.network
    )
    targets = compute_targets(small.network, small.content, small.styles, recipe)
    (loss, terms), _ = value_and_grad(small.network, targets, recipe, small.image)
    assert terms.content > 0 and terms.style > 0 and np.isfinite(loss)


def test_weights_and_targets_are_not_folded_into_the_program(small):
    text = value_and_grad.lower(*small.arguments, small.image).as_text()
    longest = max(len(line) for line in text.splitlines() if "stablehlo.constant" in line)
    assert longest < 1000


class TestDerivatives:
    """Forward and second derivatives, which a `custom_vjp` of the convolution would refuse."""

    @pytest.fixture
    def loss(self, small):
        objective = make_objective(*small.arguments)
        return lambda image: objective(image)[0]

    @pytest.fixture
    def direction(self, make_image):
        return jnp.asarray(make_image(32, 36, seed=5)) - 0.5

    def test_the_directional_derivative_is_that_of_the_gradient(self, small, loss, direction):
        image = jnp.asarray(small.image)
        _, slope = jax.jit(lambda x, v: jax.jvp(loss, (x,), (v,)))(image, direction)
        assert float(slope) == pytest.approx(
            float(jnp.vdot(jax.jit(jax.grad(loss))(image), direction)), rel=1e-4
        )

    def test_products_with_the_hessian(self, small, loss, direction, make_image):
        image, other = jnp.asarray(small.image), jnp.asarray(make_image(32, 36, seed=6)) - 0.5
        gradient = jax.grad(loss)
        product = jax.jit(lambda v: jax.jvp(gradient, (image,), (v,))[1])
        # Reverse over reverse is another way to the same.
        again = jax.jit(jax.grad(lambda x: jnp.vdot(gradient(x), direction)))(image)
        scale = float(jnp.abs(again).max())
        np.testing.assert_allclose(product(direction), again, atol=1e-3 * scale)
        # The Hessian is symmetric.
        assert float(jnp.vdot(other, product(direction))) == pytest.approx(
            float(jnp.vdot(direction, product(other))), rel=1e-3
        )

    def test_the_hessian(self, small, loss):
        corner = jnp.asarray(small.image)

        def of_patch(patch):
            return loss(corner.at[10:12, 10:12].set(patch))

        hessian = jax.jit(jax.hessian(of_patch))(corner[10:12, 10:12]).reshape(12, 12)
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-3 * np.abs(hessian).max())
        assert np.abs(hessian).max() > 0

    def test_the_gradient_is_of_the_image_alone(self, small, loss):
        text = str(jax.make_jaxpr(jax.grad(loss))(jnp.asarray(small.image)))
        # One convolution forward and one backward a layer; a third would be of the weights.
        layers = [name for name in small.network.layers if name <= "conv3_1"]
        assert text.count("convolve_3x3") == 2 * len(layers)
        assert "conv_general_dilated" not in text
