"""The network against two independent forward passes, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.ndimage import correlate

from jaxstyle import JaxstyleError, features
from jaxstyle.config.layers import TOPOLOGIES, convolution_of, convolutions, smallest_side
from jaxstyle.nn.pooling import avg_pool, max_pool
from jaxstyle.nn.preprocessing import CONVENTIONS, preprocess
from jaxstyle.nn.vgg import Block, activations

ALL = tuple(
    f"{kind}{block}_{i}" for block in range(1, 6) for i in (1, 2) for kind in ("conv", "relu")
)


@pytest.mark.parametrize(
    ("topology", "pooling", "padding", "size"),
    [
        ("vgg19", "max", "zeros", (37, 51)),
        ("vgg16", "avg", "zeros", (32, 32)),
        ("vgg16", "max", "reflect", (33, 38)),
        ("vgg19", "avg", "reflect", (47, 35)),
    ],
)
def test_every_layer_matches_torch(
    make_network, make_image, reference, topology, pooling, padding, size
):
    network = make_network(topology, padding=padding)
    image = make_image(*size)
    layers = [layer for c in network.layers for layer in (c, c.replace("conv", "relu"))]
    ours = jax.jit(lambda n, i: features(n, i, layers, pooling=pooling))(network, image)
    x = reference.input(network, reference.torch.from_numpy(image))
    theirs = reference.activations(network, x, pooling=pooling)
    assert set(ours) == set(theirs) and len(ours) == 2 * len(convolutions(topology))
    for layer, act in theirs.items():
        expected = act.permute(1, 2, 0).numpy()
        assert ours[layer].dtype == jnp.float32
        np.testing.assert_allclose(ours[layer], expected, rtol=1e-4, atol=2e-5, err_msg=layer)


@pytest.mark.parametrize("convention", ["caffe", "torchvision"])
@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("reflect", "mirror")])
def test_first_blocks_match_scipy(make_network, make_image, convention, padding, mode):
    network = make_network(convention=convention, padding=padding, blocks=2)
    image = make_image(21, 18)
    x = image.astype(np.float64)
    if convention == "caffe":
        x = x[..., ::-1] * 255 - np.array([103.939, 116.779, 123.68])
    else:
        x = (x - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    expected = {}
    for name, arrays in network.params.items():
        if name == "conv2_1":
            cut = x[:20, :18]
            x = np.maximum.reduce([cut[a::2, b::2] for a in (0, 1) for b in (0, 1)])
        kernel, bias = np.asarray(arrays["kernel"], np.float64), np.asarray(arrays["bias"])
        x = np.stack(
            [
                sum(correlate(x[..., i], kernel[..., i, o], mode=mode) for i in range(x.shape[-1]))
                + bias[o]
                for o in range(len(bias))
            ],
            -1,
        )
        expected[name] = x
        x = np.maximum(x, 0)
    ours = features(network, image, tuple(expected))
    for name, act in expected.items():
        np.testing.assert_allclose(ours[name], act, rtol=1e-4, atol=2e-5, err_msg=name)


def test_relu_is_the_positive_part_of_conv(network, make_image):
    found = features(network, make_image(), ("conv3_1", "relu3_1"))
    assert (found["conv3_1"] < 0).any()
    np.testing.assert_array_equal(found["relu3_1"], np.maximum(found["conv3_1"], 0))


def test_jit_and_vmap_change_nothing(network, make_image):
    layers = ("relu1_2", "conv2_2", "relu3_1")
    images = np.stack([make_image(24, 28, seed=seed) for seed in range(3)])
    eager = features(network, images[0], layers)
    jitted = jax.jit(features, static_argnames=("layers",))(network, images[0], layers=layers)
    batched = jax.jit(jax.vmap(lambda n, i: features(n, i, layers), (None, 0)))(network, images)
    for layer in layers:
        np.testing.assert_allclose(jitted[layer], eager[layer], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(batched[layer][0], eager[layer], rtol=1e-5, atol=1e-5)


def test_sizes_and_widths_come_from_the_image_and_the_params(make_network, make_image):
    widths = (3, 5, 7, 2, 4)
    network, image = make_network(widths=widths), make_image(53, 40)
    found = jax.eval_shape(lambda n, i: features(n, i, ALL), network, image)
    assert set(found) == set(ALL)
    for layer, act in found.items():
        block = int(layer[4])
        shrink = 2 ** (block - 1)
        assert act.shape == (53 // shrink, 40 // shrink, widths[block - 1])


@pytest.mark.parametrize(("layer", "count"), [("relu1_1", 1), ("relu2_1", 3), ("conv4_2", 10)])
def test_nothing_below_the_deepest_layer_is_computed(network, make_image, layer, count):
    program = jax.make_jaxpr(lambda n, i: features(n, i, (layer, "relu1_1")))(network, make_image())
    assert str(program).count("convolve_3x3[") == count


def test_deeper_params_are_not_needed(make_network, make_image):
    whole, part = make_network(), make_network(blocks=2)
    assert part.layers == ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    image = make_image()
    np.testing.assert_array_equal(
        features(part, image, ["relu2_2"])["relu2_2"],
        features(whole, image, ["relu2_2"])["relu2_2"],
    )


def test_the_gradient_has_no_select_and_scatter(network, make_image):
    def deep(image):
        return features(network, image, ("relu5_1",))["relu5_1"].sum()

    text = jax.jit(jax.grad(deep)).lower(make_image()).as_text()
    assert "convolution" in text
    assert "select_and_scatter" not in text and "reduce_window" not in text


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_pooling_gradient_matches_finite_differences(pool, size, x64):
    rng = np.random.default_rng(1)
    # Distinct values far apart, so that no step changes which one is the largest.
    x = rng.permutation(size[0] * size[1] * 2).reshape(*size, 2) / 4.0
    weights = rng.normal(size=(size[0] // 2, size[1] // 2, 2))
    with x64():
        check_grads(lambda x: (pool(x) * weights).sum(), (x,), 1, modes=["rev"])
    grad = jax.grad(lambda x: (pool(x) * weights).sum())(x)
    assert (grad[size[0] // 2 * 2 :] == 0).all() and (grad[:, size[1] // 2 * 2 :] == 0).all()


def test_pooling_drops_an_odd_edge_and_keeps_leading_axes():
    x = np.arange(2 * 5 * 7 * 3, dtype=np.float32).reshape(2, 5, 7, 3)
    cells = np.stack([x[:, a:4:2, b:6:2] for a in (0, 1) for b in (0, 1)])
    np.testing.assert_array_equal(max_pool(x), cells.max(0))
    np.testing.assert_allclose(avg_pool(x), cells.mean(0))


def test_preprocess_by_hand():
    pixel = jnp.array([[[1.0, 0.5, 0.0]]])
    np.testing.assert_allclose(
        preprocess(CONVENTIONS["caffe"], pixel)[0, 0],
        [0 - 103.939, 127.5 - 116.779, 255 - 123.68],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        preprocess(CONVENTIONS["torchvision"], pixel)[0, 0],
        [(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, -0.406 / 0.225],
        rtol=1e-6,
    )


def test_topologies():
    assert len(convolutions("vgg16")) == 13 and len(convolutions("vgg19")) == 16
    assert convolutions("vgg16")[-1] == "conv5_3" and convolutions("vgg19")[-1] == "conv5_4"
    assert set(TOPOLOGIES) == {"vgg16", "vgg19"}
    assert convolution_of("relu4_2") == convolution_of("conv4_2") == "conv4_2"
    assert smallest_side(("relu1_2", "conv5_1", "relu3_1")) == 16


def test_the_flax_module_declares_the_documented_params(network, make_image):
    module = Block(("conv1_1", "conv1_2"), (), (5, 5))
    made = jax.eval_shape(module.init, jax.random.key(0), make_image(8, 8))["params"]
    assert jax.tree.map(lambda x: x.shape, made) == {
        "conv1_1": {"kernel": (3, 3, 3, 5), "bias": (5,)},
        "conv1_2": {"kernel": (3, 3, 5, 5), "bias": (5,)},
    }


def test_no_layers_give_nothing(network, make_image):
    assert features(network, make_image(), ()) == {}


def refuse(words, *arguments, **options):
    with pytest.raises(JaxstyleError) as caught:
        features(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("name", ["relu6_1", "relu1_5", "pool3", "relu4-2", "", "Relu1_1"])
def test_a_name_that_is_no_layer(network, make_image, name):
    refuse([repr(name), "relu1_1"], network, make_image(), [name])


def test_a_layer_that_the_weights_lack_lists_what_they_have(make_network, make_image):
    part = make_network(blocks=2)
    refuse(
        ["relu3_1", "narrow-vgg19", "conv1_1, conv1_2, conv2_1, conv2_2"],
        part,
        make_image(),
        ["relu1_1", "relu3_1"],
    )
    refuse(["relu3_4"], make_network("vgg16"), make_image(), ["relu3_4"])


def test_layers_behind_a_gap_do_not_count(make_network, make_image):
    whole = make_network()
    holed = whole.replace(params={k: v for k, v in whole.params.items() if k != "conv2_1"})
    assert holed.layers == ("conv1_1", "conv1_2")
    refuse(["relu2_2"], holed, make_image(), ["relu2_2"])


def test_unknown_pooling(network, make_image):
    refuse(["'median'", "max, avg"], network, make_image(), ["relu1_1"], pooling="median")


@pytest.mark.parametrize(("padding", "least"), [("zeros", 16), ("reflect", 32)])
def test_too_small_an_image(make_network, make_image, padding, least):
    network = make_network(padding=padding)
    refuse(["relu5_1", str(least)], network, make_image(least - 1, 64), ["relu1_1", "relu5_1"])
    # The message names the deep layer in whatever order they are given.
    refuse(["relu5_1", str(least)], network, make_image(64, least - 1), ["relu5_1", "relu1_1"])
    enough = jax.eval_shape(
        lambda image: features(network, image, ["relu5_1"]), make_image(least, least)
    )
    assert enough["relu5_1"].size


def test_activations_take_the_networks_input(network, make_image):
    image = make_image()
    x = preprocess(network.convention, image)
    np.testing.assert_array_equal(
        activations(network, x, ("relu2_1",), pooling="max")["relu2_1"],
        features(network, image, ("relu2_1",))["relu2_1"],
    )


def test_a_network_is_a_pytree_of_its_params(network):
    assert len(jax.tree.leaves(network)) == 32
    doubled = jax.tree.map(lambda x: 2 * x, network)
    assert doubled.convention == network.convention and doubled.topology == "vgg19"
    other = dataclasses.replace(network, name="other")
    assert jax.tree.structure(other) != jax.tree.structure(network)
