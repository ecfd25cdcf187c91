"""Several scales in one run, and the mean of its images."""

import dataclasses
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STYLE_LOSS
from jax.monitoring import (
    register_event_duration_secs_listener,
    unregister_event_duration_listener,
)

from jaxstyle import JaxstyleError, Recipe, evaluate, finish, images, iterates, lbfgs, prepare
from jaxstyle.engine import loop, scales
from jaxstyle.engine.chunk import next_scale_start
from jaxstyle.engine.compilation import carry_shapes
from jaxstyle.engine.iterate import History, run_state
from jaxstyle.engine.results import truncate_at_divergence
from jaxstyle.engine.scales import scale_at
from jaxstyle.engine.sizes import output_size
from jaxstyle.images import MIN_SIDE
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.optim.registry import carry_over, make_optimizer
from jaxstyle.provenance.checkpoint import (
    check_same_run,
    load_state,
    read_checkpoint,
    save_checkpoint,
)

RECIPE = Recipe(
    content_layers="relu2_1",
    style_layers="relu1_1,relu2_1",
    style_weight=200.0,
    style_loss=STYLE_LOSS,
    tv_weight=0.0,
    size=0,
    steps=3,
    scales=2,
    scale_ratio=2**0.5,
    scale_detail=False,
    pyramid=1,
    margin=0,
    history_size=4,
)
FLAT = Recipe(preconditioner="none")
SMALL, LARGE = (25, 31), (36, 44)


@pytest.fixture(scope="module")
def network(make_network):
    return make_network(blocks=2)


@pytest.fixture(scope="module")
def image_pair(make_image):
    return make_image(36, 44, seed=1), make_image(44, 40, seed=2)


def problem_of(image_pair, network, **settings):
    elements = settings.pop("elements", None)
    recipe = dataclasses.replace(RECIPE, **settings)
    return prepare(*image_pair, recipe=recipe, network=network, elements=elements)


@pytest.fixture(scope="module")
def problem(image_pair, network):
    return problem_of(image_pair, network)


@pytest.fixture(scope="module")
def seen(problem):
    return list(iterates(problem, chunk_size=2))


def resumed(problem, stop, chunk_size):
    """The iterates of a run that goes on from the state after `stop` of them."""
    run = iterates(problem, chunk_size=chunk_size)
    state = run_state([next(run) for _ in range(stop)])
    form = carry_shapes(problem.scales[scale_at(problem, state.step)])
    for like, leaf in zip(*map(jax.tree.leaves, (form, state.carry)), strict=True):
        assert (like.shape, like.dtype) == (leaf.shape, leaf.dtype)
    return list(iterates(problem, chunk_size=chunk_size, state=state))


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.history.loss, b.history.loss)
        assert a.evaluations == b.evaluations and a.loss == b.loss


class TestScales:
    def test_images_grow_by_the_root_of_two(self, problem, seen):
        assert [scale.start.shape[:2] for scale in problem.scales] == [SMALL, LARGE]
        # Chunks end on multiples of 2 and with each scale.
        assert [i.step for i in seen] == [0, 2, 3, 4, 6]
        assert [i.image.shape[:2] for i in seen] == [SMALL, SMALL, SMALL, LARGE, LARGE]
        assert np.concatenate([i.history.step for i in seen]).tolist() == list(range(7))

    def test_numbers_go_on(self, seen):
        # One at the start of every scale and one a step.
        assert [int(i.evaluations) for i in seen] == [1, 3, 4, 6, 8]

    @pytest.mark.parametrize("count", [1, 3, 4, 5])
    def test_a_result_is_of_the_scale_it_stopped_in(
        self, problem, seen, image_pair, network, count
    ):
        (result,) = finish(problem, seen[:count])
        content, style = image_pair
        assert result.image.shape == seen[count - 1].image.shape
        assert result.steps == seen[count - 1].step and not result.diverged
        assert sum(result.terms) == pytest.approx(result.loss, rel=1e-5)
        if count == 5:
            plain = dataclasses.replace(RECIPE, scales=1)
            loss, _ = evaluate(result.image, content, style, recipe=plain, network=network)
            assert loss == pytest.approx(result.loss, rel=1e-4)

    def test_the_next_scale_starts_from_the_one_before(self, seen, image_pair, network):
        content, style = image_pair
        plain = dataclasses.replace(RECIPE, scales=1)
        start, _ = evaluate(content, content, style, recipe=plain, network=network)
        # Better after one step than the content image, and than the small image's start.
        assert float(seen[3].history.loss[0]) < 0.9 * start
        assert float(seen[2].loss) < float(seen[0].loss)

    @pytest.mark.parametrize("stop", [1, 2, 3, 4])
    def test_resumed_anywhere_it_ends_on_the_same_bits(self, problem, seen, stop):
        assert_same(finish(problem, resumed(problem, stop, chunk_size=2)), finish(problem, seen))

    def test_kept_in_a_file_in_the_first_scale(self, problem, seen, tmp_path):
        run = iterates(problem, chunk_size=2)
        state = run_state([next(run), next(run)])
        inputs = {
            "content": {"path": "a", "sha256": "a"}, "styles": [{"path": "b", "sha256": "b"}],
            "init": None,
        }  # fmt: skip
        save_checkpoint(tmp_path / "run.ck", state, problem=problem, weights="x", inputs=inputs)
        kept = read_checkpoint(tmp_path / "run.ck")
        check_same_run(kept, problem)
        again = list(iterates(problem, chunk_size=2, state=load_state(kept, problem)))
        assert_same(finish(problem, again), finish(problem, seen))
        longer = problem._replace(recipe=dataclasses.replace(problem.recipe, steps=9))
        with pytest.raises(JaxstyleError, match="--steps 3, not 9"):
            check_same_run(kept, longer)

    def test_elements_are_runs_alone_with_adam_and_its_mean(self, image_pair, network):
        settings = {"init": "noise", "noise_std": 20.0, "optimizer": "adam", "average": 0.8}
        problem = problem_of(image_pair, network, elements=["noise", "content"], **settings)
        batch = finish(problem, list(iterates(problem, chunk_size=3)))
        assert_same(finish(problem, resumed(problem, 2, chunk_size=3)), batch)
        alone = problem_of(image_pair, network, **settings)
        (result,) = finish(alone, list(iterates(alone, chunk_size=3)))
        np.testing.assert_allclose(batch[0].history.loss, result.history.loss, rtol=1e-3)
        assert batch[0].image.shape == result.image.shape == (*LARGE, 3)

    def test_too_many_scales(self, image_pair, network):
        with pytest.raises(JaxstyleError, match="^scales: 4 make the first image 16x13"):
            problem_of(image_pair, network, scales=4)
        assert min(output_size(200, 100, Recipe(scales=3), level=2)) > MIN_SIDE

    @pytest.mark.parametrize(
        ("losses", "steps", "gone"),
        [
            ([9, 5, 4, 3, 80, 70, 60], 7, False),
            # In the first scale it may explode; the second starts from the best there was.
            ([9, 5, 4, np.nan, 80, 70, 60], 7, False),
            ([9, 5, 4, 3, 80, 8e9, 60], 7, True),
            ([9, 5, 4, 3, 80, np.inf, 60, 3], 7, True),
        ],
    )
    def test_an_element_ends_where_it_explodes_in_the_last_scale(self, losses, steps, gone):
        values = np.array(losses)
        whole = History(np.arange(len(losses)), values, values, values, values)
        parts = [History(*(v[a:b] for v in whole)) for a, b in ((0, 4), (4, 7), (7, 9))]
        past, found = truncate_at_divergence(parts, 4, bound=1e4)
        assert found == gone and len(past.step) == steps


class TestCarried:
    """What optimizers take along."""

    @staticmethod
    def square(wanted):
        return lambda x: (jnp.mean((x - wanted) ** 2), None)

    def test_pairs_fit_the_larger_image(self):
        """Of a mean of squares the Hessian is 2 / n: the pairs say so at any size."""
        rng = np.random.default_rng(0)
        init, step = lbfgs(history_size=5)
        small = self.square(jnp.asarray(rng.normal(size=(6, 8, 3)), jnp.float32))
        state = init(small, jnp.zeros((6, 8, 3)))
        for _ in range(3):
            state, _ = step(small, state)
        large = self.square(jnp.asarray(rng.normal(size=(9, 11, 3)), jnp.float32))
        fresh = init(large, jnp.zeros((9, 11, 3)))
        after = carry_over(state, fresh, FLAT)
        assert after.step_size == 1 and fresh.step_size != 1
        after, info = step(large, after)
        assert info.accepted and info.value < 1e-8

    def test_nothing_learnt_is_nothing_carried(self):
        init, _ = lbfgs(history_size=5)
        flat = self.square(jnp.zeros(()))
        old, new = (init(flat, jnp.ones((*size, 3))) for size in ((4, 4), (6, 6)))
        for one, other in zip(
            *map(jax.tree.leaves, (carry_over(old, new, FLAT), new)), strict=True
        ):
            np.testing.assert_array_equal(one, other)

    def test_moments_of_adam_go_with_the_gradients(self, network):
        recipe = Recipe(optimizer="adam", style_layers="relu1_1", content_layers="relu1_1")
        recipe = resolve_recipe(recipe, network)
        init, step = make_optimizer(recipe)
        wanted = jnp.ones((4, 6, 3))
        state = init(self.square(wanted), jnp.zeros((4, 6, 3)))
        for _ in range(4):
            state, _ = step(self.square(wanted), state)
        large = init(self.square(jnp.ones((8, 12, 3))), jnp.zeros((8, 12, 3)))
        after = carry_over(state, large, recipe)
        ratio = float(jnp.abs(large.point.grad).mean() / jnp.abs(state.point.grad).mean())
        np.testing.assert_allclose(after.inner.mu, ratio * state.inner.mu[0, 0, 0], rtol=1e-4)
        np.testing.assert_allclose(after.inner.nu, ratio**2 * state.inner.nu[0, 0, 0], rtol=1e-4)
        assert after.inner.count == 4
        lost = state._replace(inner=state.inner._replace(mu=state.inner.mu * np.nan))
        assert carry_over(lost, large, recipe).inner.count == 0


class TestAverage:
    def test_it_is_the_debiased_mean_of_all_images(self, image_pair, network):
        settings = {"optimizer": "sgd", "learning_rate": 1e-4, "scales": 1, "bounds": "none"}
        problem = problem_of(image_pair, network, average=0.8, **settings)
        positions, seen = [], []
        for iterate in iterates(problem, chunk_size=1):
            positions.append(np.asarray(iterate.carry.state.point.position))
            seen.append(iterate)
        weights = 0.8 ** np.arange(len(positions))[::-1]
        mean = np.tensordot(weights / weights.sum(), positions, 1)
        (result,) = finish(problem, seen)
        np.testing.assert_allclose(result.image, np.clip(mean, 0, 1), atol=1e-6)
        assert float(seen[-1].loss) == pytest.approx(result.loss, rel=1e-3)
        (chunked,) = finish(problem, list(iterates(problem, chunk_size=4)))
        np.testing.assert_allclose(chunked.image, result.image, atol=1e-6)


def test_what_a_larger_scales_start_compiles_is_counted(problem, monkeypatch):
    real = loop.transfer_state

    def slow(*arguments, **options):
        time.sleep(0.5)
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "transfer_state", slow)
    seen = list(iterates(problem, chunk_size=2))
    first = next(i for i in seen if i.step > RECIPE.steps)
    assert first.compile_seconds >= 0.5


class TestDetail:
    """What a larger scale adds to the enlarged result of the smaller one."""

    def test_unchanged_initial_image_comes_back(self, image_pair):
        small, large = (images.resize(image_pair[0], *size) for size in (SMALL, LARGE))
        found = next_scale_start(small, small, large, detailed=(True,), shape=large.shape)
        np.testing.assert_allclose(found, large, atol=1e-5)

    def test_without_it_the_image_is_resized(self, image_pair):
        small, large = (images.resize(image_pair[0], *size) for size in (SMALL, LARGE))
        found = next_scale_start(small, small, large, detailed=(False,), shape=large.shape)
        np.testing.assert_allclose(
            found, jax.image.resize(small, large.shape, "lanczos3"), atol=1e-6
        )

    def test_each_image_of_a_batch_as_alone(self, image_pair):
        small = np.stack([images.resize(p, *SMALL) for p in (image_pair[0], image_pair[0][::-1])])
        large = np.stack([images.resize(p, *LARGE) for p in (image_pair[0], image_pair[0][::-1])])
        found = next_scale_start(small, small, large, detailed=(True, False), shape=large.shape)
        for k, flag in enumerate((True, False)):
            alone = next_scale_start(
                small[k], small[k], large[k], detailed=(flag,), shape=large.shape[1:]
            )
            np.testing.assert_allclose(found[k], alone, atol=1e-5)

    def test_not_for_noise(self, image_pair, network):
        elements = ["content", "noise", image_pair[0]]
        problem = problem_of(image_pair, network, scale_detail=True, elements=elements)
        assert problem.detailed == (True, False, True)
        assert problem_of(image_pair, network, scale_detail=True, noise_blend=0.5).detailed == (
            False,
        )


def test_the_next_scale_is_compiled_while_this_one_runs(image_pair, network):
    # Of a size that nothing else in this process has.
    problem = problem_of(image_pair, network, steps=2, scale_ratio=1.5)
    compiled = []

    def note(name, seconds, **about):
        if "backend_compile" in name:
            compiled.append((threading.current_thread(), about.get("fun_name")))

    register_event_duration_secs_listener(note)
    try:
        here = []
        for iterate in iterates(problem):
            here.append((iterate.step, len(compiled)))
    finally:
        unregister_event_duration_listener(note)
    main = threading.main_thread()
    beside = {name for thread, name in compiled if thread is not main}
    assert any("run_chunk" in name for name in beside)
    before = next(count for step, count in here if step == 2)
    assert [name for thread, name in compiled[before:] if thread is main] == []


def test_who_stops_at_the_first_scale_does_not_wait(image_pair, network, monkeypatch):
    problem = problem_of(image_pair, network)
    begun, goes_on = threading.Event(), threading.Event()

    def compiling(*_, **__):
        begun.set()
        assert goes_on.wait(60)

    monkeypatch.setattr(scales, "compile_scale", compiling)
    run = iterates(problem)
    next(run)
    assert begun.wait(60)
    run.close()
    goes_on.set()
