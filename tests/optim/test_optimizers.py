"""The optimizers against SciPy, torch and plain numpy, and `lbfgs` batch element by batch
element."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import STYLE_LOSS

from jaxstyle import (
    JaxstyleError,
    Numbers,
    Recipe,
    compute_targets,
    lbfgs,
    make_objective,
    make_optimizer,
)
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.optim import preconditioner
from jaxstyle.optim.base import unevaluated_state
from jaxstyle.optim.first_order import schedule
from jaxstyle.optim.lbfgs import carry_history
from jaxstyle.optim.line_search import jaxopt_lbfgs, optax_lbfgs
from jaxstyle.optim.preconditioner import spectrum
from jaxstyle.optim.registry import evaluates_once_per_step


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def beale(x):
    a, b = x
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def quadratic(condition, size=12):
    """A rotated bowl with the minimum 0 at 1, …, 1 and the condition number asked for."""
    rng = np.random.default_rng(5)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    root = np.sqrt(np.geomspace(1, condition, size))[:, None] * q.T

    def bowl(x):
        # In halves, so that float32 keeps what is left near the minimum.
        return 0.5 * jnp.sum(jnp.matmul(root.astype(x.dtype), x - 1, precision="highest") ** 2)

    return bowl


STARTS = {
    "rosenbrock": [[-1.2, 1.0], [0.0, 0.0], [3.0, -2.0], [-2.0, 4.0], [1.1, 1.1], [0.5, -3.0]],
    "himmelblau": [[0.0, 0.0], [4.0, 4.0], [-4.0, 4.0], [-5.0, -5.0], [5.0, -4.0], [1.0, 9.0]],
    "beale": [[1.0, 1.0], [0.0, 0.0], [2.0, 0.2], [-1.0, -1.0], [2.5, -0.5], [0.5, 1.5]],
    "quadratic-1e2": list(np.random.default_rng(0).normal(size=(3, 12)) * 3),
    "quadratic-1e4": list(np.random.default_rng(1).normal(size=(3, 12)) * 3),
    "rosenbrock-8": list(np.random.default_rng(2).normal(size=(3, 8))),
}
FUNCTIONS = {
    "rosenbrock": rosenbrock,
    "himmelblau": himmelblau,
    "beale": beale,
    "quadratic-1e2": quadratic(1e2),
    "quadratic-1e4": quadratic(1e4),
    "rosenbrock-8": rosenbrock,
}


def with_aux(function):
    return lambda x: (function(x), jnp.sum(x))


def runner(function, steps, optimizer=None, *, batched=False):
    """A jitted `start -> (states after 0 … steps, infos)` of one start or a batch."""
    init, step = optimizer or lbfgs()
    objective = with_aux(function)

    def run(start):
        first = init(objective, start)

        def body(state, _):
            state, info = step(objective, state)
            return state, (state, info)

        _, (states, infos) = jax.lax.scan(body, first, None, length=steps)
        states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, states)
        return states, infos

    return jax.jit(jax.vmap(run) if batched else run)


def values_runner(function, steps):
    """Like `runner` for a batch, keeping only the values: whole states of many steps are large."""
    init, step = lbfgs()
    objective = with_aux(function)

    def run(start):
        state = init(objective, start)

        def body(state, _):
            state, info = step(objective, state)
            return state, info.value

        return jnp.append(state.point.value, jax.lax.scan(body, state, None, length=steps)[1])

    return jax.jit(jax.vmap(run))


def evaluations_until(values, bound):
    below = np.flatnonzero(np.asarray(values) <= bound)
    return below[0] + 1 if below.size else np.inf


class Reached(Exception):
    """Ends SciPy's run, which has no other way to stop at a value."""


def scipy_evaluations(value_and_grad, start, bound):
    """Evaluations that SciPy's L-BFGS-B takes until a value is at most `bound`, in float64."""
    count = 0

    def counted(x):
        nonlocal count
        count += 1
        value, grad = value_and_grad(x)
        if value <= bound:
            raise Reached
        return float(value), np.asarray(grad, float)

    try:
        scipy.optimize.minimize(
            counted,
            np.asarray(start, float),
            jac=True,
            method="L-BFGS-B",
            options={"maxcor": 20, "maxfun": 2000, "maxiter": 2000, "ftol": 0, "gtol": 0},
        )
    except Reached:
        return count
    return np.inf


class TestAgainstScipy:
    STEPS = 300

    # Float32 is the library's precision; the last digit of a value of 1e4 is 1e-3.
    @pytest.mark.parametrize(
        ("name", "bits", "bound"),
        [
            *((name, 32, 1e-4) for name in FUNCTIONS),
            *((name, 64, 1e-10) for name in ("beale", "quadratic-1e4", "rosenbrock-8")),
        ],
    )
    def test_reaches_the_minimum_in_comparable_evaluations(self, name, bits, bound, x64):
        function, starts = FUNCTIONS[name], STARTS[name]
        with x64():
            value_and_grad = jax.jit(jax.value_and_grad(function))
            theirs = [scipy_evaluations(value_and_grad, start, bound) for start in starts]
        if bits == 64:
            with x64():
                values = values_runner(function, self.STEPS)(np.array(starts))
        else:
            values = values_runner(function, self.STEPS)(np.array(starts, np.float32))
        assert values.dtype == f"float{bits}"
        ours = [evaluations_until(element, bound) for element in values]
        # One start may be bad luck for either; together they compare. (SciPy may stop short
        # of the bound, by its line search's own tests; ours may not.)
        assert max(ours) <= self.STEPS, (ours, theirs)
        reached = [count for count in theirs if np.isfinite(count)]
        assert np.mean(ours) <= 1.5 * np.mean(reached) + 5, (ours, theirs)


class TestOneEvaluationAStep:
    def test_the_program_holds_the_objective_once(self):
        calls = 0

        def objective(x):
            nonlocal calls
            calls += 1
            return jnp.sum(jnp.tan(x)), None

        init, step = lbfgs()
        state = init(objective, jnp.ones(3))
        assert calls == 1
        program = str(jax.make_jaxpr(lambda s: step(objective, s))(state))
        assert calls == 2
        assert program.count(" tan ") == 1
        assert "while" not in program

    @pytest.mark.parametrize("minimum", [0.0, 3.0, 30.0])
    def test_the_second_step_ends_a_sum_of_squares(self, minimum):
        # The first trial tells its curvature, however far the minimum is.
        states, _ = runner(lambda x: jnp.sum((x - minimum) ** 2), 2)(jnp.ones(5))
        np.testing.assert_allclose(states.point.position[-1], minimum, rtol=1e-4, atol=1e-5)

    def test_evaluations_count_steps_whatever_happens(self):
        states, infos = runner(rosenbrock, 40)(jnp.array([-1.2, 1.0]))
        np.testing.assert_array_equal(states.evaluations, np.arange(1, 42))
        np.testing.assert_array_equal(infos.evaluations, np.arange(2, 42))
        assert not infos.accepted.all()

    def test_what_the_state_says_of_its_point_is_so(self):
        states, infos = runner(rosenbrock, 40)(jnp.array([-1.2, 1.0]))
        value, grad = jax.vmap(jax.value_and_grad(rosenbrock))(states.point.position)
        np.testing.assert_allclose(states.point.value, value, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(states.point.grad, grad, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(states.point.aux, states.point.position.sum(1), rtol=1e-5)
        np.testing.assert_array_equal(infos.value, states.point.value[1:])
        moved = (np.diff(states.point.position, axis=0) != 0).any(1)
        assert (infos.accepted >= moved).all()

    @pytest.mark.parametrize("window", [1, 5])
    def test_no_value_above_the_last_few(self, window):
        states, infos = runner(rosenbrock, 60, lbfgs(nonmonotone_window=window))(
            jnp.array([-1.2, 1.0])
        )
        # The last few are those that were accepted; a refused trial repeats a value.
        values = np.asarray(states.point.value)[np.r_[True, infos.accepted]]
        for k in range(window, len(values)):
            assert values[k] <= values[k - window : k].max() * (1 + 1e-6)
        if window > 1:
            assert (np.diff(values) > 0).any()


def numpy_lbfgs(
    function, start, steps, *, size, metric=None, window=5, first_move=0.05, c1=1e-4, c2=0.9,
    max_shrinks=10,
):  # fmt: skip
    """The same method in plain numpy: a list of pairs and a dense inverse Hessian."""
    metric = np.eye(len(start)) if metric is None else metric
    value_and_grad = jax.jit(jax.value_and_grad(function))

    def evaluate(x):
        value, grad = value_and_grad(x)
        return float(value), np.asarray(grad)

    def inverse_hessian():
        s, y = pairs[-1]
        h, eye = (s @ y) / (y @ metric @ y) * metric, np.eye(len(s))
        for s, y in pairs[-size:]:
            rho = 1 / (s @ y)
            h = (eye - rho * np.outer(s, y)) @ h @ (eye - rho * np.outer(y, s))
            h += rho * np.outer(s, s)
        return h

    def restarted():
        step = metric @ g
        return -step, move / np.abs(step).max()

    x = np.array(start)
    f, g = evaluate(x)
    pairs, recent, shrinks, move = [], [f], 0, first_move
    p, t = restarted()
    slope = p @ g
    positions, accepts, furthers = [x], [], 0
    for _ in range(steps):
        new_x = x + t * p
        new_f, new_g = evaluate(new_x)
        good = new_f <= max(recent[-window:]) + c1 * t * slope + np.finfo(float).eps * abs(f)
        accepts.append(bool(good and np.isfinite(new_f)))
        if accepts[-1]:
            s, y, turned = new_x - x, new_g - g, bool(pairs)
            x, f, g, shrinks = new_x, new_f, new_g, 0
            recent.append(f)
            if s @ y > 1e-8 * np.linalg.norm(s) * np.linalg.norm(y):
                pairs.append((s, y))
            else:
                move *= 2
            if turned and p @ g < c2 * slope:
                t, slope, furthers = 2 * t, p @ g, furthers + 1
            else:
                p, t = (-inverse_hessian() @ g, 1.0) if pairs else restarted()
                slope = p @ g
        elif shrinks + 1 >= max_shrinks:
            pairs, recent, shrinks, move = [], [f], 0, first_move
            p, t = restarted()
            slope = p @ g
        else:
            shrinks += 1
            curvature = 2 * (new_f - f - t * slope)
            t = np.clip(-slope * t * t / curvature, t / 10, t / 2) if np.isfinite(new_f) else t / 10
        positions.append(x)
    return np.array(positions), np.array(accepts), furthers


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_ring_buffer_equals_a_list(size, preconditioned, x64):
    # From here trials are refused, and the search goes further, with each size and metric.
    start = np.array([-1.0, 0.1, -2.8, -2.9, -2.1])
    root = np.random.default_rng(3).normal(size=(5, 5))
    metric = root @ root.T + np.eye(5) if preconditioned else None
    with x64():
        expected, accepts, furthers = numpy_lbfgs(
            rosenbrock, start, 36, size=size, metric=metric, first_move=1e-3
        )
        preconditioner = (lambda x: jnp.asarray(metric) @ x) if preconditioned else None
        optimizer = lbfgs(history_size=size, preconditioner=preconditioner, first_move=1e-3)
        states, infos = runner(rosenbrock, 36, optimizer)(start)
    assert accepts.sum() > 3 * size and not accepts.all() and furthers
    np.testing.assert_array_equal(infos.accepted, accepts)
    np.testing.assert_allclose(states.point.position, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_pairs_as_images_are_those_flattened(preconditioned):
    """What accelerators keep, against what CPUs keep."""

    def objective(image):
        return rosenbrock(image.reshape(-1)), None

    start = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    kept = {"history_size": 3, "preconditioner": spectrum if preconditioned else None}
    found = {}
    for flat in (True, False):
        init, step = lbfgs(**kept, flat=flat)
        state = init(objective, jnp.asarray(start))
        for _ in range(8):
            state, _ = jax.jit(step, static_argnums=0)(objective, state)
        found[flat] = state
    assert found[False].pairs.s_history.shape == (3, 4, 5, 3)
    for mine, theirs in zip(*map(jax.tree.leaves, found.values()), strict=True):
        scale = float(jnp.abs(mine).max()) + 1e-30
        np.testing.assert_allclose(mine, theirs.reshape(mine.shape), rtol=0, atol=2e-3 * scale)
    of_larger = []
    for flat, state in found.items():
        larger = lbfgs(**kept, flat=flat).init(lambda x: (jnp.sum(x), None), jnp.zeros((8, 10, 3)))
        of_larger.append(
            carry_history(state, larger, preconditioner=kept["preconditioner"]).pairs.yy
        )
    scale = float(jnp.abs(of_larger[0]).max())
    assert scale > 0
    np.testing.assert_allclose(of_larger[1], of_larger[0], rtol=0, atol=5e-3 * scale)


class TestPreconditioner:
    def test_it_equals_other_coordinates(self, x64):
        root = np.random.default_rng(3).normal(size=(5, 5)) + 2 * np.eye(5)
        start = np.array([-1.2, 1.0, 0.3, -0.7, 0.5])
        with x64():
            root = jnp.asarray(root)
            # Monotone and with no first move of its own: it is measured in the position's units.
            kept = {"nonmonotone_window": 1, "history_size": 4}
            inside = lbfgs(**kept, preconditioner=lambda g: root @ root.T @ g)
            step = jnp.max(jnp.abs(root @ root.T @ jax.grad(rosenbrock)(start)))
            same = jnp.max(jnp.abs(root.T @ jax.grad(rosenbrock)(start)))
            outside = lbfgs(**kept, first_move=float(0.05 * same / step))
            states, _ = runner(rosenbrock, 25, inside)(start)
            z = jnp.linalg.solve(root, start)
            others, _ = runner(lambda z: rosenbrock(root @ z), 25, outside)(z)
            np.testing.assert_allclose(
                states.point.position, others.point.position @ root.T, rtol=1e-6, atol=1e-8
            )

    @pytest.mark.parametrize("shape", [(8, 6, 3), (7, 9, 3), (1, 5, 3), (2, 2, 1)])
    def test_the_spectrum_is_symmetric_and_positive(self, shape, x64):
        with x64():
            size = int(np.prod(shape))
            columns = jax.vmap(lambda e: spectrum(e.reshape(shape)).ravel())(jnp.eye(size))
            matrix = np.asarray(columns)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
        assert np.linalg.eigvalsh(matrix).min() > 0.5

    @pytest.mark.parametrize("shape", [(8, 6, 3), (7, 9, 3), (1, 5, 3), (64, 48, 1)])
    def test_products_are_the_fourier_transform(self, shape):
        """What TPUs compute, in the float32 of a run."""
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        found = preconditioner._by_products(jnp.asarray(x))
        np.testing.assert_allclose(found, spectrum(jnp.asarray(x)), atol=1e-5 * abs(x).max())

    def test_tpus_have_products_and_others_fourier_transforms(self):
        traced = jax.jit(spectrum).trace(jnp.zeros((8, 6, 3)))
        for platform, has_products in (("tpu", True), ("cuda", False), ("cpu", False)):
            text = traced.lower(lowering_platforms=(platform,)).as_text()
            assert ("stablehlo.dot_general" in text) == has_products
            assert ("stablehlo.fft" in text) != has_products

    def test_the_spectrum_weighs_waves_by_frequency(self, x64):
        y = np.arange(32)[:, None, None] * np.ones((1, 24, 3))
        with x64():
            for cycles in (1, 4, 16):
                wave = np.cos(2 * np.pi * cycles * y / 32)
                np.testing.assert_allclose(
                    spectrum(jnp.asarray(wave)), (cycles / 16) ** -0.6 * wave, atol=1e-12
                )


def curvatures(states):
    """sᵀy of each slot after each step, 0 where it is empty."""
    return np.diagonal(states.pairs.sy, axis1=-2, axis2=-1)


class TestBadGround:
    def test_beyond_a_wall_of_nan(self):
        """`x − log x` is NaN for x ≤ 0 and smallest at 1; the first trial leaps over the wall."""

        def walled(x):
            return jnp.sum(x - jnp.log(x))

        run = runner(walled, 120, lbfgs(first_move=50.0))
        for start in ([0.01, 30.0], [60.0, 1e-3], [2.0, 2.0]):
            self.check_walled(*run(jnp.array(start)))

    def check_walled(self, states, infos):
        assert not infos.accepted[0]
        for leaf in (states.point, states.direction, *states.pairs[:4]):
            assert all(np.isfinite(part).all() for part in jax.tree.leaves(leaf))
        assert (states.point.position > 0).all()
        np.testing.assert_allclose(states.point.position[-1], 1, rtol=1e-2)

    def test_a_gradient_that_is_not_finite_is_refused(self):
        """The value at the wall is fine there, only its slope is infinite."""

        def rooted(x):
            return jnp.sum(jnp.sqrt(jnp.maximum(x, 0)) + (x - 1) ** 2)

        states, infos = runner(rooted, 30, lbfgs(first_move=3.0))(jnp.array([3.0]))
        assert not infos.accepted[0]
        assert np.isfinite(states.point.grad).all()
        assert states.point.value[-1] < states.point.value[0]

    def test_overflow_is_refused(self):
        def steep(x):
            return jnp.sum(jnp.exp(x * x)) - 2.0

        states, infos = runner(steep, 80, lbfgs(first_move=40.0))(jnp.array([3.0, -2.0]))
        assert not infos.accepted[0] and np.isfinite(states.point.value).all()
        np.testing.assert_allclose(states.point.position[-1], 0, atol=1e-2)

    def test_from_a_ridge(self):
        """`x⁴ − x²` bends down around 0: no pair is safe there until the steps have grown."""

        def ridge(x):
            return jnp.sum(x**4 - x**2)

        run = runner(ridge, 60)
        for start in ([0.1, -0.2], [1e-3, 1e-3], [0.3, 0.4]):
            self.check_ridge(*run(jnp.array(start)))

    def check_ridge(self, states, infos):
        assert infos.accepted[0] and (states.pairs.sy[1] == 0).all()
        assert (curvatures(states) >= 0).all() and (states.slope <= 0).all()
        np.testing.assert_allclose(np.abs(states.point.position[-1]), np.sqrt(0.5), rtol=1e-3)

    def test_past_a_saddle(self):
        def saddle(x):
            return x[0] ** 2 - x[1] ** 2 + x[1] ** 4

        states, _ = runner(saddle, 80)(jnp.array([1.0, 1e-3]))
        assert (curvatures(states) >= 0).all()
        np.testing.assert_allclose(states.point.value[-1], -0.25, rtol=1e-4)

    @pytest.mark.parametrize("name", ["stationary", "constant", "downhill for ever"])
    def test_where_there_is_no_curvature(self, name):
        function, start = {
            "stationary": (lambda x: jnp.sum(x**2), jnp.zeros(3)),
            "constant": (lambda x: 0 * jnp.sum(x) + 5, jnp.ones(3)),
            "downhill for ever": (lambda x: jnp.sum(x), jnp.ones(3)),
        }[name]
        # Long enough for doubled steps to leave float32.
        states, _ = runner(function, 300)(start)
        assert all(np.isfinite(part).all() for part in jax.tree.leaves(states.point))
        if name != "downhill for ever":
            np.testing.assert_array_equal(states.point.position[-1], start)

    def test_a_start_that_is_not_finite_stays_and_says_so(self):
        states, infos = runner(lambda x: jnp.sum(jnp.log(x)), 25)(jnp.array([-1.0]))
        assert not infos.accepted.any() and np.isnan(states.point.value).all()
        np.testing.assert_array_equal(states.point.position, -1)

    def test_restart_after_refusals(self):
        def pit(x):
            return jnp.where(jnp.abs(x[0]) < 1e-12, 0.0, jnp.nan) + jnp.sum(x)

        states, infos = runner(pit, 12, lbfgs(max_backtracks=4))(jnp.zeros(2))
        assert not infos.accepted[:8].any()
        np.testing.assert_allclose(infos.step_size[4], 0.05, rtol=1e-6)
        np.testing.assert_allclose(infos.step_size[3], 0.05e-3, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"history_size": 0},
        {"first_move": 0.0},
        {"sufficient_decrease": 1.0},
        {"sufficient_decrease": 0.0},
        {"curvature": 1.0},
        {"curvature": 1e-5},
        {"nonmonotone_window": 0},
        {"max_backtracks": 0},
    ],
)
def test_arguments_out_of_range(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(JaxstyleError, match=f"{name}={value}"):
        lbfgs(**arguments)


class TestBatchSharding:
    """Under `vmap` each batch element is the run it would be alone."""

    STARTS = np.concatenate(
        [STARTS["rosenbrock"], np.random.default_rng(4).normal(size=(6, 2)) * 2]
    ).astype(np.float32)

    @pytest.mark.skipif(
        jax.__version_info__ >= (0, 11)
        and "ynn_fusion_type=" not in os.environ.get("XLA_FLAGS", ""),
        reason="from JAX 0.11 XLA orders sums by the batch, unless "
        "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=-reduce",
    )
    def test_rosenbrock_bit_for_bit(self):
        batched = runner(rosenbrock, 60, batched=True)(self.STARTS)
        alone = runner(rosenbrock, 60)
        for k, start in enumerate(self.STARTS):
            expected = alone(start)
            for path, leaf in jax.tree_util.tree_leaves_with_path(expected):
                element = dict(jax.tree_util.tree_leaves_with_path(batched))[path][k]
                np.testing.assert_array_equal(
                    element, leaf, err_msg=f"batch element {k} {jax.tree_util.keystr(path)}"
                )
        accepted = np.asarray(batched[1].accepted)
        # Batch elements that refuse and batch elements that accept were side by side.
        assert (accepted.any(0) & ~accepted.all(0)).sum() > 10

    def test_an_image(self, make_network, make_image):
        network = make_network(blocks=2)
        recipe = resolve_recipe(
            Recipe(
                content_layers="relu2_2",
                style_layers="relu1_1,relu2_1",
                style_weight=100.0,
                style_loss=STYLE_LOSS,
            ),
            network,
        )
        targets = compute_targets(
            network, make_image(24, 24, seed=1), [make_image(24, 24, seed=2)], recipe
        )
        function = make_objective(network, targets, recipe)
        starts = np.stack([make_image(24, 24, seed=seed) for seed in range(3, 6)])
        batched, _ = runner(lambda x: function(x)[0], 15, batched=True)(starts)
        alone = runner(lambda x: function(x)[0], 15)
        for k, start in enumerate(starts):
            expected, _ = alone(start)
            # Equal to the bit where this was written; XLA may convolve a batch otherwise.
            np.testing.assert_allclose(
                batched.point.value[k],
                expected.point.value,
                rtol=1e-3,
                err_msg=f"batch element {k}",
            )
            np.testing.assert_allclose(
                batched.point.position[k, -1], expected.point.position[-1], atol=2e-2
            )


class TestLineSearchLibraries:
    OPTIMIZERS = {"jaxopt-lbfgs": jaxopt_lbfgs, "optax-lbfgs": optax_lbfgs}

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_evaluations_are_the_true_number(self, name):
        counts = {"gradients": 0, "values": 0}

        def count(kind):
            counts[kind] += 1

        @jax.custom_jvp
        def seen(x):
            # The wrappers evaluate once more, without gradient, for the terms.
            jax.debug.callback(lambda: count("values"))
            return x

        @seen.defjvp
        def _(primals, tangents):
            jax.debug.callback(lambda: count("gradients"))
            return primals[0], tangents[0]

        init, step = self.OPTIMIZERS[name](history_size=5)
        objective = with_aux(lambda x: rosenbrock(seen(x)))
        run_chunk = jax.jit(lambda state: step(objective, state))
        state = jax.jit(lambda x: init(objective, x))(jnp.array([-1.2, 1.0]))
        jax.effects_barrier()
        assert int(state.evaluations) == counts["gradients"] == 1
        spent = []
        for _ in range(12):
            before = int(state.evaluations)
            state, info = run_chunk(state)
            jax.effects_barrier()
            spent.append(int(state.evaluations) - before)
            assert int(state.evaluations) == counts["gradients"], (spent, counts)
            assert info.evaluations == state.evaluations
            value, grad = jax.value_and_grad(rosenbrock)(state.point.position)
            np.testing.assert_allclose(state.point.value, value, rtol=1e-4)
            np.testing.assert_allclose(state.point.grad, grad, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(state.point.aux, state.point.position.sum(), rtol=1e-5)
        assert max(spent) > 1
        assert state.point.value < 5 < rosenbrock(jnp.array([-1.2, 1.0]))


@pytest.mark.parametrize("value", [1.0, np.nan], ids=["a number", "none"])
@pytest.mark.parametrize(
    "optimizer", ["lbfgs", "lbfgs-fixed", "sgd", "momentum", "rmsprop", "adam"]
)
def test_a_first_step_from_blank_is_the_start(optimizer, value):
    recipe = Recipe(optimizer=optimizer, history_size=3, learning_rate=0.03)
    chosen = make_optimizer(recipe)
    assert evaluates_once_per_step(recipe)

    def objective(x):
        loss = value * jnp.sum(jnp.cosh(x - 0.2) * jnp.arange(1.0, 4.0)[None, None])
        return loss, {"mean": jnp.mean(x)}

    start = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 5, 3)), jnp.float32)
    expected = chosen.init(objective, start)
    state = unevaluated_state(chosen, start, {"mean": jnp.zeros(())})
    assert int(state.evaluations) == 0
    found, info = chosen.step(objective, state)
    assert int(info.evaluations) == 1 and bool(info.accepted)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


class TestFirstOrder:
    STEPS = 20
    MATRIX = np.diag([1.0, 3.0, 10.0])
    START = np.array([1.0, -2.0, 0.5], np.float32)

    def ours(self, recipe):
        def bowl(x):
            return 0.5 * x @ (self.MATRIX.astype(np.float32) @ x) + jnp.sum(x)

        return runner(bowl, self.STEPS, make_optimizer(recipe))(self.START)

    def theirs(self, make, rates):
        torch = pytest.importorskip("torch")
        x = torch.tensor(self.START, dtype=torch.float64, requires_grad=True)
        optimizer, positions = make(torch.optim, [x]), [self.START]
        for rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = float(rate)
            optimizer.zero_grad()
            (0.5 * x @ (torch.tensor(self.MATRIX) @ x) + x.sum()).backward()
            optimizer.step()
            positions.append(x.detach().numpy().copy())
        return np.array(positions)

    # torch adds RMSprop's eps outside the root and optax inside: both are 1e-8, lost here.
    MAKE = {
        "sgd": lambda optim, x: optim.SGD(x, lr=1.0),
        "momentum": lambda optim, x: optim.SGD(x, lr=1.0, momentum=0.8),
        "rmsprop": lambda optim, x: optim.RMSprop(x, lr=1.0, alpha=0.9, eps=1e-8),
        "adam": lambda optim, x: optim.Adam(x, lr=1.0),
    }
    SCHEDULES = {
        "constant": lambda done: 1 + 0 * done,
        "exponential": lambda done: 0.1**done,
        "linear": lambda done: 1 - 0.9 * done,
        "cosine": lambda done: 0.1 + 0.9 * (1 + np.cos(np.pi * done)) / 2,
    }

    @pytest.mark.parametrize(
        ("optimizer", "scheduled"),
        [
            ("sgd", "constant"),
            ("sgd", "exponential"),
            ("momentum", "constant"),
            ("momentum", "linear"),
            ("rmsprop", "constant"),
            ("adam", "constant"),
            ("adam", "cosine"),
        ],
    )
    def test_steps_are_torchs(self, optimizer, scheduled):
        recipe = Recipe(
            optimizer=optimizer,
            learning_rate=0.03,
            momentum=0.8,
            schedule=scheduled,
            decay=0.1,
            steps=self.STEPS,
        )
        states, infos = self.ours(recipe)
        rates = 0.03 * self.SCHEDULES[scheduled](np.arange(self.STEPS) / self.STEPS)
        np.testing.assert_allclose(infos.step_size, rates, rtol=1e-5)
        expected = self.theirs(self.MAKE[optimizer], rates)
        np.testing.assert_allclose(states.point.position, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(states.evaluations, np.arange(1, self.STEPS + 2))
        assert infos.accepted.all()

    @pytest.mark.parametrize("scheduled", SCHEDULES)
    def test_schedules_end_at_decay_times_the_rate(self, scheduled):
        recipe = Recipe(
            optimizer="adam", learning_rate=0.5, schedule=scheduled, decay=0.1, steps=50
        )
        rates = np.array([schedule(scheduled, Numbers.of(recipe))(k) for k in range(51)])
        np.testing.assert_allclose(
            rates, 0.5 * self.SCHEDULES[scheduled](np.arange(51) / 50), rtol=1e-5
        )
        assert rates[0] == np.float32(0.5)
        assert rates[-1] == pytest.approx(0.5 if scheduled == "constant" else 0.05)

    def test_numbers_may_be_traced(self):
        @jax.jit
        def one_step(numbers):
            init, step = make_optimizer(recipe, numbers=numbers)
            square = with_aux(lambda x: jnp.sum(x**2))
            return step(square, init(square, jnp.ones(2)))[0].point.position

        recipe = Recipe(optimizer="sgd", learning_rate=0.25, schedule="linear")
        np.testing.assert_allclose(one_step(Numbers.of(recipe)), 0.5)
