"""Presets against the peers' formulas, written out in PyTorch with nothing of ours but weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import JaxstyleError, Recipe, compute_targets, make_objective, presets
from jaxstyle.config.presets import EXPECTED_WEIGHTS, preset, weights_notice
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.optim.fixed_step_lbfgs import fixed_lbfgs

CAFFE_MEAN = (103.939, 116.779, 123.68)
BLOCKS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]


class Peers:
    """Each peer's loss of an image, from the formulas of its source; float64."""

    def __init__(self, torch, network):
        self.torch, self.functional = torch, torch.nn.functional
        self.kernels = {
            name: tuple(
                torch.tensor(np.array(arrays[key], np.float64)) for key in ("kernel", "bias")
            )
            for name, arrays in network.params.items()
        }

    def layers(self, x, *, ceil=False, average=False, edge=False):
        """Every ReLU of the network's input `[3, h, w]`."""
        found, x, functional = {}, x[None], self.functional
        for name, (kernel, bias) in self.kernels.items():
            if name.endswith("_1") and name != "conv1_1":
                pool = functional.avg_pool2d if average else functional.max_pool2d
                x = pool(x, 2, ceil_mode=ceil)
            mode = "replicate" if edge and name == "conv1_1" else "constant"
            x = functional.pad(x, (1, 1, 1, 1), mode=mode)
            x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias).relu()
            found[name.replace("conv", "relu")] = x[0]
        return found

    def bgr(self, image, scale=255.0):
        mean = self.torch.tensor(CAFFE_MEAN, dtype=self.torch.float64)[:, None, None]
        return image.permute(2, 0, 1).flip(0) * scale - mean

    def rgb(self, image, scale, mean, std):
        mean, std = (
            self.torch.tensor(v, dtype=self.torch.float64)[:, None, None] for v in (mean, std)
        )
        return (image.permute(2, 0, 1) * scale - mean) / std

    @staticmethod
    def raw_gram(act):
        flat = act.flatten(1)
        return flat @ flat.T

    def gram(self, act):
        return self.raw_gram(act) / act.numel()

    def johnson(self, x, p, a, *, content, style, ceil=False):
        x, p, a = (self.layers(i, ceil=ceil) for i in (x, p, a))
        loss = content * (x["relu4_2"] - p["relu4_2"]).square().mean()
        return loss + style * sum(
            (self.gram(x[l]) - self.gram(a[l])).square().mean() for l in BLOCKS
        )

    def neural_style(self, image, content, style):
        x, p, a = (self.bgr(i, 256.0) for i in (image, content, style))
        loss = self.johnson(x, p, a, content=5, style=100, ceil=True)
        d1 = x[:, :-1, :-1] - x[:, :-1, 1:]
        d2 = x[:, :-1, :-1] - x[:, 1:, :-1]
        return loss + 1e-3 * 0.5 * (d1.square() + d2.square()).sum()

    def neural_style_pt(self, image, content, style):
        x, p, a = map(self.bgr, (image, content, style))
        tv = (x[:, 1:] - x[:, :-1]).abs().sum() + (x[:, :, 1:] - x[:, :, :-1]).abs().sum()
        return self.johnson(x, p, a, content=5, style=100) + 1e-3 * tv

    def gatys_notebook(self, image, content, style):
        x, p, a = (self.layers(self.bgr(i)) for i in (image, content, style))
        loss = (x["relu4_2"] - p["relu4_2"]).square().mean()
        for layer in BLOCKS:
            mine, theirs = (
                self.raw_gram(i[layer]) / (i[layer].shape[1] * i[layer].shape[2]) for i in (x, a)
            )
            # The notebook's 1e3 / n² is for n = 64 … 512: here for the channels there are.
            loss = loss + 1e3 / mine.shape[0] ** 2 * (mine - theirs).square().mean()
        return loss

    def gatys_2016(self, image, content, style):
        x, p, a = (self.layers(self.bgr(i), average=True) for i in (image, content, style))
        loss = 0.5 * (x["relu4_2"] - p["relu4_2"]).square().sum()
        for layer in BLOCKS:
            n = x[layer].shape[0]
            mine, theirs = (
                self.raw_gram(i[layer]) / (i[layer].shape[1] * i[layer].shape[2]) for i in (x, a)
            )
            loss = loss + 1e3 / 5 * (mine - theirs).square().sum() / (4 * n**2)
        return loss

    def gordic(self, image, content, style):
        x, p, a = (
            self.rgb(i, 255.0, (123.675, 116.28, 103.53), (1, 1, 1))
            for i in (image, content, style)
        )
        tv = (x[:, 1:] - x[:, :-1]).abs().sum() + (x[:, :, 1:] - x[:, :, :-1]).abs().sum()
        x, p, a = map(self.layers, (x, p, a))
        loss = 1e5 * (x["relu4_2"] - p["relu4_2"]).square().mean()
        grams = sum((self.gram(x[l]) - self.gram(a[l])).square().sum() for l in BLOCKS)
        return loss + 3e4 / 5 * grams + tv

    def root(self, matrix):
        """Twelve Newton-Schulz iterations, and as many of the Lyapunov equation backward."""
        torch = self.torch
        three = 3 * torch.eye(len(matrix), dtype=matrix.dtype)

        class Root(torch.autograd.Function):
            @staticmethod
            def forward(context, a):
                y, z = a / a.norm(), three / 3
                for _ in range(12):
                    t = (three - z @ y) / 2
                    y, z = y @ t, t @ z
                context.save_for_backward(y * a.norm().sqrt())
                return y * a.norm().sqrt()

            @staticmethod
            def backward(context, slope):
                (root,) = context.saved_tensors
                a, q = root / root.norm(), slope / root.norm()
                for _ in range(12):
                    t = three - a @ a
                    q = (q @ t - a.T @ (a.T @ q - q @ a)) / 2
                    a = a @ t / 2
                return q / 2

        return Root.apply(matrix)

    def crowson(self, image, content, style):
        torch = self.torch
        x, p, a = (
            self.layers(self.rgb(i, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), edge=True)
            for i in (image, content, style)
        )
        loss = 0.015 * (x["relu4_2"] - p["relu4_2"]).square().mean()
        for layer, weight in zip(BLOCKS, (256, 64, 16, 4, 1), strict=True):
            moments = []
            for i in (x, a):
                flat = i[layer].flatten(1)
                mean = flat.mean(1)
                cov = flat @ flat.T / flat.shape[1] - torch.outer(mean, mean)
                moments.append((mean, cov + 1e-4 * torch.eye(len(mean), dtype=flat.dtype)))
            (mean, cov), (mean_t, cov_t) = moments
            root = self.root(cov_t).detach()
            between = torch.trace(self.root(root @ cov @ root))
            spread = torch.trace(cov) + torch.trace(cov_t) - 2 * between
            distance = (mean - mean_t).square().mean() + spread / len(mean)
            loss = loss + weight / 341 * distance
        padded = self.functional.pad(image.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="replicate")
        inside = padded[..., 1:-1, 1:-1]
        tv = (padded[..., 1:-1, 2:] - inside).square().mean() / 3
        tv = tv + (padded[..., 2:, 1:-1] - inside).square().mean() / 3
        tv = tv + (padded[..., 1:, 1:] - padded[..., :-1, :-1]).square().mean() / 12
        tv = tv + (padded[..., 1:, :-1] - padded[..., :-1, 1:]).square().mean() / 12
        return loss + 2.0 * 2 * tv

    def keras(self, image, content, style):
        x, p, a = map(self.bgr, (image, content, style))
        pixels = [i.shape[1] * i.shape[2] for i in (x, a)]
        d1 = (x[:, :-1, :-1] - x[:, 1:, :-1]).square()
        d2 = (x[:, :-1, :-1] - x[:, :-1, 1:]).square()
        loss = 1e-6 * ((d1 + d2) ** 1.25).sum()
        x, p, a = map(self.layers, (x, p, a))
        loss = loss + 2.5e-8 * (x["relu5_2"] - p["relu5_2"]).square().sum()
        for layer in BLOCKS:
            # The program has one size for both; each by its own is the same there.
            mine, theirs = (
                self.raw_gram(i[layer]) / n for i, n in zip((x, a), pixels, strict=True)
            )
            loss = loss + 1e-6 / 5 * (mine - theirs).square().sum() / (4 * 3**2)
        return loss

    def anishathalye(self, image, content, style):
        x, p, a = map(self.bgr, (image, content, style))
        tv = (x[:, 1:] - x[:, :-1]).square().mean() + (x[:, :, 1:] - x[:, :, :-1]).square().mean()
        return self.johnson(x, p, a, content=5, style=100, ceil=True) + 100 * tv


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the peers' formulas are written in it")


OURS = ("default", "nnst", "strotss")
"""Presets that are not another program's objective; their losses have tests of their own."""


@pytest.mark.parametrize("name", [name for name in presets if name not in OURS])
def test_loss_and_gradient_are_the_peers(torch, make_network, make_image, name):
    network = make_network(convention="torchvision" if name in ("gordic", "crowson") else "caffe")
    image, content = make_image(37, 51, seed=1), make_image(37, 51, seed=2)
    style = make_image(43, 36, seed=3)
    recipe = presets[name]
    targets = compute_targets(network, jnp.asarray(content), [jnp.asarray(style)], recipe)

    @jax.jit
    def ours(network, targets, image):
        return jax.value_and_grad(make_objective(network, targets, recipe), has_aux=True)(image)

    (loss, terms), gradient = ours(network, targets, jnp.asarray(image))
    x = torch.tensor(image, dtype=torch.float64, requires_grad=True)
    peers = Peers(torch, network)
    theirs = getattr(peers, name.replace("-", "_"))(
        x, *(torch.tensor(i, dtype=torch.float64) for i in (content, style))
    )
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=1e-4)
    assert float(sum(terms)) == pytest.approx(float(loss), rel=1e-6)
    gap = np.linalg.norm(gradient - x.grad.numpy()) / np.linalg.norm(x.grad.numpy())
    assert gap < 1e-4


def test_presets_resolve_and_name_their_weights(network):
    assert set(EXPECTED_WEIGHTS) <= set(presets)
    for recipe in presets.values():
        assert isinstance(resolve_recipe(recipe, network), Recipe)
    assert weights_notice("gordic", "vgg19-torchvision") is None
    assert weights_notice(None, "compact") is None and weights_notice("default", "x") is None
    assert "'vgg19-torchvision'" in weights_notice("gordic", "compact")


def test_a_preset_changes_of_the_input_only_what_its_program_changes(make_network):
    own = make_network(padding="reflect").convention
    for name, changes in (
        ("neural-style-pt", {}),
        ("neural-style", {"scale": 256.0}),
        ("crowson", {"padding": "edge-first"}),
    ):
        seen = presets[name].configure_network(make_network(padding="reflect")).convention
        assert seen == dataclasses.replace(own, **changes), name


def test_fixed_steps_turn_back_from_what_is_not_finite():
    # The first step goes from 3 to -7, where there is no logarithm.
    init, step = fixed_lbfgs(unit=10.0)
    state = init(objective := lambda x: (jnp.sum(x - jnp.log(x)), None), jnp.full(1, 3.0))
    accepted = []
    for _ in range(15):
        state, info = step(objective, state)
        accepted.append(bool(info.accepted))
        assert np.isfinite(info.value)
    assert not accepted[0] and sum(accepted) > 5
    np.testing.assert_allclose(state.point.position, 1.0, rtol=1e-3)


@pytest.mark.parametrize("settings", [{"history_size": 0}, {"unit": 0.0}], ids=str)
def test_fixed_steps_refuse_what_is_out_of_range(settings):
    with pytest.raises(JaxstyleError, match="^fixed_lbfgs"):
        fixed_lbfgs(**settings)


def test_fixed_steps_follow_torchs_curve(torch, make_network, make_image):
    network = make_network(blocks=2)
    recipe = Recipe(
        content_layers="relu2_2", style_layers="relu1_1,relu2_1", style_weight=2e3,
        content_weight=1.0, tv_weight=1e-4, variation="absolute", optimizer="lbfgs-fixed",
        history_size=8, style_loss="gram",
    )  # fmt: skip
    start, content, style = (make_image(24, 28, seed=seed) for seed in (1, 2, 3))
    targets = compute_targets(network, jnp.asarray(content), [jnp.asarray(style)], recipe)
    init, step = fixed_lbfgs(history_size=8)

    @jax.jit
    def ours(network, targets, start):
        objective = make_objective(network, targets, recipe)
        state = init(objective, start)

        def body(state, _):
            state, info = step(objective, state)
            return state, info.value

        return jnp.append(state.point.value, jax.lax.scan(body, state, None, length=30)[1])

    curve = np.asarray(ours(network, targets, jnp.asarray(start)))

    @jax.jit
    def value_and_grad(network, targets, x):
        objective = make_objective(network, targets, recipe)
        return jax.value_and_grad(lambda x: objective(x / 255)[0])(x)

    x = torch.tensor(start * 255, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [x], max_iter=30, max_eval=100, history_size=8, tolerance_grad=-1, tolerance_change=-1
    )
    theirs = []

    def closure():
        value, gradient = value_and_grad(network, targets, jnp.asarray(x.detach().numpy()))
        x.grad = torch.tensor(np.asarray(gradient))
        theirs.append(float(value))
        return torch.tensor(theirs[-1])

    optimizer.step(closure)
    # torch does not evaluate the last point.
    np.testing.assert_allclose(curve[: len(theirs)], theirs, rtol=0.01)
    assert len(theirs) >= 30 and curve[-1] < 0.2 * curve[0]


def test_a_preset_has_the_rate_of_its_program_for_each_optimizer(network):
    def rate(name, **settings):
        return resolve_recipe(preset(name, settings), network).learning_rate

    assert rate("neural-style-pt", optimizer="adam") == 1 / 255
    assert rate("neural-style", optimizer="adam") == 10 / 256
    assert preset("gordic", {"optimizer": "adam"}).steps == 2999
    assert preset("gordic", {"optimizer": "adam", "steps": 7}).steps == 7
    # What is given wins; what the program does not offer has our default.
    assert rate("neural-style-pt", optimizer="adam", learning_rate=0.5) == 0.5
    assert rate("neural-style-pt", optimizer="rmsprop") == rate("default", optimizer="rmsprop")
    # A rate belongs to its optimizer.
    assert rate("anishathalye") == rate("anishathalye", optimizer="adam") == 10 / 255
    assert rate("anishathalye", optimizer="sgd") == rate("default", optimizer="sgd")


def test_wide_networks_keep_more_pairs(make_network):
    def pairs(*widths):
        layers = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
        params = {
            layer: {"kernel": np.zeros((3, 3, before, width)), "bias": np.zeros(width)}
            for layer, before, width in zip(layers, (3, *widths), widths, strict=False)
        }
        network = make_network(blocks=3).replace(params=params)
        recipe = Recipe(content_layers="relu1_1", style_layers="relu1_1")
        return resolve_recipe(recipe, network).history_size

    assert pairs(64, 64, 128, 128, 256) == 50
    assert pairs(16, 16, 32, 32, 64) == 20
