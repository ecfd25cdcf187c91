"""The run: what `iterates` yields, what a result says, and what changes nothing."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import STYLE_LOSS

from jaxstyle import (
    JaxstyleError,
    Recipe,
    evaluate,
    finish,
    images,
    iterates,
    prepare,
    stylize_batch,
)
from jaxstyle import stylize as stylize_one
from jaxstyle.config.choices import OPTIMIZERS
from jaxstyle.engine import chunk, compilation
from jaxstyle.engine.initial_images import initial_image
from jaxstyle.engine.scales import default_chunk_size
from jaxstyle.engine.sizes import small_style_notice, style_images, style_size
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.nn.preprocessing import CONVENTIONS

RECIPE = Recipe(
    content_layers="relu2_2",
    style_layers="relu1_1,relu2_1",
    style_weight=200.0,
    style_loss=STYLE_LOSS,
    tv_weight=1e-4,
    steps=6,
    history_size=4,
)


@pytest.fixture(scope="module")
def network(make_network):
    return make_network(blocks=2)


@pytest.fixture(scope="module")
def pair(make_image):
    # Tall content, a painting of another size.
    return make_image(28, 24, seed=1), make_image(20, 33, seed=2)


@pytest.fixture(scope="module")
def problem(pair, network):
    return prepare(*pair, recipe=RECIPE, network=network)


@pytest.fixture(scope="module")
def seen(problem):
    return list(iterates(problem, chunk_size=4))


@pytest.fixture(scope="module")
def result(problem, seen):
    (result,) = finish(problem, seen)
    return result


@pytest.fixture(scope="module")
def noisy(pair, network):
    """Three batch elements from noise, of the seeds 5, 6 and 7."""
    recipe = dataclasses.replace(RECIPE, init="noise", noise_std=30.0, seed=5)
    return stylize_batch(*pair, recipe=recipe, network=network, starts=3)


def assert_same(one, other):
    np.testing.assert_array_equal(one.image, other.image)
    assert one.loss == other.loss and one.terms == other.terms
    for a, b in zip(one.history, other.history, strict=True):
        np.testing.assert_array_equal(a, b)


class TestIterates:
    def test_yields_the_start_and_every_chunk(self, problem):
        for chunk_size, steps in ((2, [0, 2, 4, 6]), (4, [0, 4, 6]), (100, [0, 6])):
            assert [i.step for i in iterates(problem, chunk_size=chunk_size)] == steps

    def test_the_first_is_the_start(self, problem, seen, pair):
        # To half a step of 8 bits, which the bounds keep from 0 and 1.
        np.testing.assert_allclose(seen[0].image, pair[0], atol=1 / 509)
        np.testing.assert_array_equal(problem.start, pair[0])
        assert seen[0].evaluations == 1 and seen[0].history.step.tolist() == [0]
        assert seen[0].loss == seen[0].history.loss[0]

    def test_histories_join_to_one_entry_a_step(self, seen):
        assert [i.history.step.tolist() for i in seen] == [[0], [1, 2, 3, 4], [5, 6]]
        for i in seen:
            for values in i.history[1:]:
                assert values.shape == i.history.step.shape
            np.testing.assert_allclose(i.history.loss, sum(i.history[2:]), rtol=1e-5)

    def test_the_best_only_gets_better(self, seen):
        losses = [float(i.loss) for i in seen]
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
        for i in seen:
            assert isinstance(i.image, jax.Array) and i.image.shape == (28, 24, 3)
            assert 0 <= np.min(i.image) and np.max(i.image) <= 1
            np.testing.assert_allclose(i.loss, sum(i.terms), rtol=1e-5)

    def test_a_problem_can_run_again(self, problem, seen, pair):
        """Buffers are donated; those of the problem and of what was yielded are not."""
        again = list(iterates(problem, chunk_size=4))
        for one, other in zip(seen, again, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(problem.start, pair[0])

    def test_times_are_told_apart(self, seen):
        assert all(i.compile_seconds >= 0 and i.run_seconds > 0 for i in seen)

    def test_default_chunks(self):
        assert default_chunk_size(np.zeros((32, 32, 3))) == 5
        assert default_chunk_size(np.zeros((512, 512, 3))) == 4
        assert default_chunk_size(np.zeros((4, 512, 512, 3))) == 1
        assert default_chunk_size(np.zeros((4000, 4000, 3))) == 1
        on_gpu = [
            default_chunk_size(np.zeros((side, side, 3)), platform="gpu")
            for side in (256, 1024, 2048, 8000)
        ]
        assert on_gpu == [50, 16, 4, 1]


class TestResult:
    def test_numbers_fit_together(self, result, seen):
        assert result.steps == 6 and result.evaluations == 7
        assert result.history.step.tolist() == list(range(7))
        assert all(len(values) == 7 for values in result.history)
        assert result.initial_loss == result.history.loss[0] == seen[0].loss
        assert sum(result.terms) == pytest.approx(result.loss, rel=1e-6)
        assert sum(result.initial_terms) == pytest.approx(result.initial_loss, rel=1e-6)
        assert result.loss < result.initial_loss
        assert isinstance(result.loss, float) and isinstance(result.terms.tv, float)

    def test_the_image_is_an_image(self, result):
        image = result.image
        assert isinstance(image, np.ndarray) and image.dtype == np.float32
        assert image.shape == (28, 24, 3) and image.min() >= 0 and image.max() <= 1

    def test_the_loss_is_that_of_the_image(self, result, pair, network):
        content, style = pair
        loss, terms = evaluate(result.image, content, [style], recipe=RECIPE, network=network)
        assert loss == pytest.approx(result.loss, rel=1e-4)
        np.testing.assert_allclose(terms, result.terms, rtol=1e-4)

    def test_the_recipe_is_resolved(self, result, network):
        expected = dataclasses.replace(
            resolve_recipe(RECIPE, network), scales=1, pyramid=1, margin=8
        )
        assert result.recipe == expected

    def test_stylize_is_the_loop_with_nothing_in_it(self, pair, network, result):
        direct = stylize_one(*pair, recipe=RECIPE, network=network)
        np.testing.assert_allclose(direct.history.loss, result.history.loss, rtol=1e-6)

    def test_same_seed_same_bytes(self, pair, network):
        recipe = dataclasses.replace(RECIPE, init="noise", seed=3)
        one, other = (stylize_one(*pair, recipe=recipe, network=network) for _ in range(2))
        assert_same(one, other)
        third = stylize_one(*pair, recipe=dataclasses.replace(recipe, seed=4), network=network)
        assert not np.array_equal(third.image, one.image)

    @pytest.mark.parametrize("chunk_size", [2, 4, 6])
    def test_the_length_of_chunks_changes_nothing(self, problem, result, chunk_size):
        (other,) = finish(problem, list(iterates(problem, chunk_size=chunk_size)))
        # Bit for bit on CPU: a chunk is a scan of the same step.
        assert_same(other, result)

    def test_the_first_chunk_may_be_short(self, problem, result):
        seen = list(iterates(problem, chunk_size=4, first=1))
        assert [i.step for i in seen] == [0, 1, 4, 6]
        assert_same(finish(problem, seen)[0], result)


class TestStops:
    def test_after_some_chunks(self, problem, pair, network):
        run = iterates(problem, chunk_size=2)
        seen = [next(run), next(run)]
        run.close()
        (result,) = finish(problem, seen)
        assert result.steps == 2 and result.evaluations == 3
        assert result.history.step.tolist() == [0, 1, 2]
        loss, _ = evaluate(result.image, pair[0], pair[1], recipe=RECIPE, network=network)
        assert loss == pytest.approx(result.loss, rel=1e-4)

    def test_before_the_first_chunk(self, problem):
        (result,) = finish(problem, [next(iterates(problem))])
        np.testing.assert_allclose(result.image, np.clip(problem.start, 0, 1), atol=1 / 509)
        assert result.steps == 0 and result.loss == pytest.approx(result.initial_loss, rel=1e-5)

    def test_earlier_images_are_not_needed(self, problem, seen, result):
        bare = [*(i._replace(image=None) for i in seen[:-1]), seen[-1]]
        (other,) = finish(problem, bare)
        assert_same(other, result)


class TestOptimizers:
    @pytest.mark.parametrize("optimizer", ["adam", "momentum", "jaxopt-lbfgs"])
    def test_each_descends(self, pair, network, optimizer):
        rate = None if optimizer == "jaxopt-lbfgs" else {"momentum": 1e-6}.get(optimizer, 0.005)
        recipe = dataclasses.replace(RECIPE, optimizer=optimizer, learning_rate=rate)
        result = stylize_one(*pair, recipe=recipe, network=network)
        assert result.loss < result.initial_loss
        assert result.evaluations >= 7 if rate is None else result.evaluations == 7

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_the_start_is_typed_as_steps_leave_it(self, pair, network, optimizer):
        recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
        form = compilation.carry_shapes(prepare(*pair, recipe=recipe, network=network))
        # A weak type would compile the second chunk anew.
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(form))

    def test_a_diverged_run_returns_its_best_image(self, pair, network):
        recipe = dataclasses.replace(
            RECIPE, optimizer="sgd", learning_rate=1e30, init="noise", noise_std=20.0, bounds="none"
        )
        result = stylize_one(*pair, recipe=recipe, network=network)
        assert not np.isfinite(result.history.loss[-1])
        assert np.isfinite(result.image).all() and np.isfinite(result.loss)
        # The start was the best, and clipping moves its loss a little.
        assert result.loss == pytest.approx(result.initial_loss, rel=0.1)

    def test_other_numbers_use_the_same_program(self, pair, network):
        stylize_one(*pair, recipe=RECIPE, network=network)
        before = chunk.run_chunk._cache_size(), chunk.init_carry._cache_size()
        changed = dataclasses.replace(
            RECIPE, style_weight=5.0, content_layers="relu2_2:2", seed=9, init="noise"
        )
        stylize_one(*pair, recipe=changed, network=network)
        assert (chunk.run_chunk._cache_size(), chunk.init_carry._cache_size()) == before


class TestBatch:
    def test_an_element_is_the_single_run_of_its_seed(self, pair, network, noisy):
        assert [element.recipe.seed for element in noisy] == [5, 6, 7]
        for element in noisy:
            alone = stylize_one(
                *pair,
                recipe=dataclasses.replace(
                    RECIPE, init="noise", noise_std=30.0, seed=element.recipe.seed
                ),
                network=network,
            )
            assert element.recipe == alone.recipe and element.evaluations == alone.evaluations
            # XLA may convolve a batch in another order: close is what is promised.
            np.testing.assert_allclose(element.history.loss, alone.history.loss, rtol=1e-3)
            assert element.loss == pytest.approx(alone.loss, rel=1e-3)
            np.testing.assert_allclose(element.image, alone.image, atol=5e-3)

    def test_elements_of_several_seeds_differ(self, noisy):
        assert not np.array_equal(noisy[0].image, noisy[1].image)
        for element in noisy:
            assert all(len(values) == 7 for values in element.history)
            assert element.loss < element.initial_loss

    def test_mixed_starts(self, pair, network, make_image):
        content, style = pair
        other = make_image(14, 12, seed=8)
        problem = prepare(
            content,
            style,
            recipe=dataclasses.replace(RECIPE, noise_std=30.0),
            network=network,
            elements=["content", "noise", other],
        )
        assert problem.start.shape == (3, 28, 24, 3)
        np.testing.assert_array_equal(problem.start[0], content)
        assert problem.start[1].std() < 0.3
        seen = list(iterates(problem, chunk_size=6))
        assert seen[-1].image.shape == (3, 28, 24, 3)
        assert seen[-1].history.loss.shape == (3, 6) and seen[-1].evaluations.tolist() == [7] * 3
        results = finish(problem, seen)
        alone = stylize_one(content, style, recipe=RECIPE, network=network)
        np.testing.assert_allclose(results[0].history.loss, alone.history.loss, rtol=1e-3)
        assert len({element.initial_loss for element in results}) == 3

    def test_no_elements(self, pair, network):
        for starts in (0, []):
            with pytest.raises(JaxstyleError, match="elements"):
                stylize_batch(*pair, recipe=RECIPE, network=network, starts=starts)


class TestPrepare:
    @pytest.mark.parametrize("convention", CONVENTIONS)
    def test_noise_is_around_the_mean_color(self, convention):
        noise = initial_image(
            "noise",
            content=np.zeros((64, 64, 3), np.float32),
            style=np.zeros((4, 4, 3), np.float32),
            convention=CONVENTIONS[convention],
            noise_std=10.0,
            seed=1,
        )
        assert noise.shape == (64, 64, 3) and noise.dtype == np.float32
        rgb = {"caffe": [123.68, 116.779, 103.939], "torchvision": [123.675, 116.28, 103.53]}
        np.testing.assert_allclose(255 * noise.mean((0, 1)), rgb[convention], atol=0.7)
        np.testing.assert_allclose(255 * noise.std((0, 1)), 10, rtol=0.05)

    def test_sizes(self, network, make_image):
        content, style = make_image(40, 30), make_image(64, 50)

        def start(**changes):
            recipe = dataclasses.replace(RECIPE, **changes)
            return prepare(content, style, recipe=recipe, network=network).start.shape

        assert start(size=32) == (32, 24, 3)
        assert start(size=512) == (40, 30, 3)
        assert start(size=80, upscale=True) == (80, 60, 3)
        assert start(size=0) == (40, 30, 3)
        assert start(size=32, init="style") == (32, 24, 3)

    def test_values_of_a_start_stay_when_it_is_resized(self, network, make_image):
        content = make_image(40, 32)
        for start in (np.full((40, 32, 3), 1.5, np.float32), np.full((20, 16, 3), 1.5, np.float32)):
            problem = prepare(content, content, recipe=RECIPE, network=network, start=start)
            np.testing.assert_allclose(problem.start, 1.5, rtol=1e-5)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"content": np.zeros((8, 8), np.float32)}, ["content", "(8, 8)"]),
            ({"content": np.zeros((8, 8, 3), np.uint16)}, ["content", "uint16"]),
            ({"content": np.full((8, 8, 3), np.nan)}, ["content", "finite"]),
            ({"styles": np.zeros((8, 8, 4), np.float32)}, ["style", "(8, 8, 4)"]),
            ({"styles": []}, ["style"]),
            ({"start": "cat"}, ["init", "'cat'"]),
            ({"start": np.zeros((4, 4))}, ["start"]),
            ({"recipe": dataclasses.replace(RECIPE, style_blend="1,1")}, ["style_blend"]),
            ({"recipe": dataclasses.replace(RECIPE, style_scale=0.2)}, ["style_scale", "33x20"]),
            ({"recipe": Recipe(content_layers="relu5_1")}, ["content_layers", "relu5_1"]),
        ],
        ids=lambda value: next(iter(value)),
    )
    def test_what_does_not_fit_is_named(self, pair, network, change, words):
        content, style = pair
        arguments = {"content": content, "styles": style, "recipe": RECIPE, **change}
        content, styles = arguments.pop("content"), arguments.pop("styles")
        with pytest.raises(JaxstyleError) as caught:
            prepare(content, styles, network=network, **arguments)
        for word in words:
            assert word in str(caught.value)


def test_evaluate_resizes_the_content_and_not_the_style(network, make_image):
    image, content, style = make_image(20, 24), make_image(40, 48, seed=1), make_image(30, 30)
    recipe = dataclasses.replace(RECIPE, size=0)
    loss, terms = evaluate(image, content, style, recipe=recipe, network=network)
    assert np.isfinite(loss) and loss == pytest.approx(sum(terms), rel=1e-6)
    bounded, _ = evaluate(
        image, content, style, recipe=dataclasses.replace(recipe, size=16), network=network
    )
    assert bounded != loss


def test_several_styles_blend(network, make_image, pair):
    content, style = pair
    other = make_image(24, 24, seed=9)

    def loss(styles, blend):
        recipe = dataclasses.replace(RECIPE, steps=1, style_blend=blend)
        return stylize_one(content, styles, recipe=recipe, network=network).initial_loss

    losses = [loss([style, other], blend) for blend in (None, "1,1", [1, 0])]
    assert losses[0] == losses[1] != losses[2]
    assert losses[2] == pytest.approx(loss(style, None), rel=1e-6)


def test_a_style_is_scaled_in_one_resampling(make_image, network):
    style = make_image(60, 90, seed=3)
    for scale, size, shape in ((1, 45, (30, 45)), (0.8, 45, (24, 36)), (1.5, 45, (45, 68))):
        (scaled,) = style_images(style, Recipe(size=size, style_scale=scale))
        assert (
            scaled.shape == (*shape, 3)
            and style_size(60, 90, Recipe(size=size, style_scale=scale)) == shape
        )
        np.testing.assert_array_equal(scaled, images.resize(style, *shape))
    for size, longest in ((0, 180), (512, 180), (50, 100)):
        (scaled,) = style_images(style, Recipe(size=size, style_scale=2))
        assert max(scaled.shape) == longest


def test_a_style_smaller_than_what_a_layer_sees_is_pointed_out(make_network):
    network = make_network(blocks=3)

    def notice(sizes, shortest=100, **settings):
        recipe = Recipe(content_layers="relu2_1", **{"style_layers": "relu1_1,relu3_1", **settings})
        return small_style_notice(sizes, recipe, network, shortest=shortest)

    # One position of relu3_1 sees 24 pixels a side.
    assert notice([(200, 24)]) is None
    line = notice([(200, 24), (200, 23)])
    assert line.startswith("style 2 is 23x200") and "relu3_1 sees 24" in line
    assert "32x20" in notice([(160, 100)], size=160, style_scale=0.2).replace("20x32", "32x20")
    assert notice([(200, 20)], style_layers="relu2_1") is None
    assert notice([(200, 20)], style_layers={"relu2_1": 1, "relu3_1": 0}) is None
    # Nothing better is to be had for an output as small.
    assert notice([(200, 20)], shortest=20) is None


def test_what_cannot_be_run_is_named(make_network, make_image):
    network = make_network(blocks=2)
    recipe = Recipe(
        size=0, content_layers="relu1_1", style_layers="relu1_1", style_loss=STYLE_LOSS, steps=2
    )
    pair = make_image(32, 32), make_image(32, 32, seed=1)
    for name, given in (("content", (255, 1)), ("style", (1, 255))):
        scaled = [factor * image for factor, image in zip(given, pair, strict=True)]
        with pytest.raises(JaxstyleError, match=f"{name}: .* divided by 255"):
            prepare(*scaled, recipe=recipe, network=network)
    problem = prepare(*pair, recipe=recipe, network=network)
    with pytest.raises(JaxstyleError, match="chunk_size: 0 is out of range"):
        next(iterates(problem, chunk_size=0))
    with pytest.raises(JaxstyleError, match="first: -1 is out of range"):
        next(iterates(problem, first=-1))
    with pytest.raises(JaxstyleError, match="iterates: there is none"):
        finish(problem, [])
