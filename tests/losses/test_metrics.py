"""Metrics against NumPy and SciPy, the ranks that they must give, and the command."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

import jaxstyle
from jaxstyle import JaxstyleError
from jaxstyle.images.color_transfer import LUMA
from jaxstyle.losses import metrics
from jaxstyle.losses.metrics import compute_metrics

CONTENT_LAYERS = ("relu2_2", "relu3_1")


@pytest.fixture(scope="module")
def images(make_image):
    return make_image(40, 48), make_image(40, 48, seed=1), [make_image(36, 44, seed=2)]


@pytest.fixture(scope="module")
def found(images, make_network):
    return compute_metrics(make_network(blocks=3), *images, content_layers=CONTENT_LAYERS)


def maps(network, image, layers):
    return {
        l: np.asarray(f, np.float64) for l, f in jaxstyle.features(network, image, layers).items()
    }


def cosine(a, b):
    return 1 - cdist(a.reshape(1, -1), b.reshape(1, -1), "cosine")[0, 0]


def patches(act):
    h, w, _ = act.shape
    cut = [act[i : i + 3, j : j + 3].ravel() for i in range(h - 2) for j in range(w - 2)]
    return np.stack(cut)


def test_the_formulas(images, found, make_network):
    image, content, (style,) = images
    network = make_network(blocks=3)
    layers = ("relu1_1", "relu2_1", "relu2_2", "relu3_1")
    mine, original, theirs = (maps(network, x, layers) for x in (image, content, style))
    fidelity = np.mean([cosine(mine[l], original[l]) for l in CONTENT_LAYERS])
    assert found.content_fidelity == pytest.approx(fidelity, rel=1e-4)

    histograms = [
        np.stack([np.histogram(x[..., k], 32, (0, 1))[0] / x[..., k].size for k in range(3)])
        for x in (image, style)
    ]
    assert found.colors == pytest.approx(cosine(*histograms), rel=1e-4)
    grams = [
        [act.reshape(-1, act.shape[-1]).T @ act.reshape(-1, act.shape[-1]) for act in of.values()]
        for of in (mine, theirs)
    ]
    textures = np.mean(
        [cosine(a, b) for k, (a, b) in enumerate(zip(*grams, strict=True)) if k != 2]
    )
    assert found.textures == pytest.approx(textures, rel=1e-4)
    assert found.global_effects == pytest.approx((found.colors + textures) / 2, rel=1e-4)

    distances = cdist(patches(mine["relu3_1"]), patches(theirs["relu3_1"]), "cosine")
    assert found.nearest == pytest.approx(1 - distances.min(1).mean(), rel=1e-4)
    variety = len(set(distances.argmin(1))) / distances.shape[1]
    assert found.variety == pytest.approx(variety, rel=1e-4)
    assert found.local_patterns == pytest.approx((found.nearest + variety) / 2, rel=1e-4)

    def logs(act):
        flat = act.reshape(-1, act.shape[-1])
        flat = flat / np.sqrt(np.mean(flat**2))
        return log_softmax(flat @ flat.T / np.sqrt(flat.shape[-1]), -1)

    p, q = logs(original["relu3_1"]), logs(mine["relu3_1"])
    assert found.cfsd == pytest.approx((np.exp(p) * (p - q)).sum(-1).mean(), rel=1e-3)


def test_ssim_is_that_of_scipys_gaussian(images, found):
    a, b = (np.asarray(x, np.float64) @ LUMA for x in images[:2])

    def mean(x):
        # A window of 11 is a radius of 5.
        return gaussian_filter(x, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    covariance = mean(a * b) - mean(a) * mean(b)
    variances = [mean(x * x) - mean(x) ** 2 for x in (a, b)]
    c1, c2 = 0.01**2, 0.03**2
    wanted = (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
    wanted /= (mean(a) ** 2 + mean(b) ** 2 + c1) * (sum(variances) + c2)
    assert found.ssim == pytest.approx(wanted.mean(), rel=1e-3)


def test_the_photograph_and_the_painting_are_at_the_ends(images, make_network):
    network, (_, content, styles) = make_network(blocks=3), images
    photograph = compute_metrics(network, content, content, styles, content_layers=CONTENT_LAYERS)
    assert photograph.content_fidelity == pytest.approx(1, abs=1e-5)
    assert photograph.ssim == pytest.approx(1, abs=1e-5)
    assert photograph.cfsd == pytest.approx(0, abs=1e-5)
    painting = compute_metrics(network, styles[0], styles[0], styles, content_layers=CONTENT_LAYERS)
    for name in ("global_effects", "local_patterns", "colors", "textures", "nearest", "variety"):
        assert getattr(painting, name) == pytest.approx(1, abs=1e-4), name
        assert getattr(photograph, name) < 1


def test_several_styles_and_a_shallow_network(images, make_network, make_image):
    image, content, styles = images
    many = [*styles, make_image(50, 33, seed=5)]
    found = compute_metrics(
        make_network(blocks=1), image, content, many, content_layers=["relu1_1"]
    )
    assert all(np.isfinite(found))


def test_large_maps_are_sampled(make_network, monkeypatch, images, found):
    monkeypatch.setattr(metrics, "MOST_PATCHES", 30)
    act = jnp.asarray(maps(make_network(blocks=3), images[0], ["relu3_1"])["relu3_1"], jnp.float32)
    nearest, variety = metrics._local_patterns.__wrapped__(act, [act])
    assert nearest == pytest.approx(1, abs=1e-5) and variety == 1
    assert np.isfinite(metrics._structure_divergence.__wrapped__(act, act[::-1]))


def test_a_small_image_is_refused(make_network, make_image):
    with pytest.raises(JaxstyleError, match="^metrics: .*31 pixels"):
        compute_metrics(
            make_network(blocks=2), make_image(31, 40), make_image(31, 40), [make_image()],
            content_layers=["relu1_1"],
        )  # fmt: skip


def test_the_command(files, objective, run):
    command = (
        "evaluate", files["content"], "--content", files["content"], "--style", files["style"],
        *objective, "--metrics",
    )  # fmt: skip
    code, out, err = run(*command, "--json")
    assert code == 0, err
    report = json.loads(out)
    names = {"content_fidelity", "global_effects", "local_patterns", "cfsd", "ssim"}
    assert names <= set(report["metrics"]) and "loss" in report
    assert report["metrics"] == pytest.approx(report["references"]["content"])
    assert report["references"]["style"]["ssim"] < 1 == round(report["metrics"]["ssim"], 4)
    code, out, err = run(*command)
    assert code == 0, err
    table = out.splitlines()
    head = next(k for k, line in enumerate(table) if line.split() == ["image", "content", "style"])
    assert table[head + 1].split()[:3] == ["content_fidelity", "1.0000", "1.0000"]
