"""What optimizers take as a position and as an objective, and what an evaluation is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import JaxstyleError, Recipe, lbfgs, make_optimizer

OPTIMIZERS = ("lbfgs", "lbfgs-fixed", "jaxopt-lbfgs", "optax-lbfgs", "adam", "sgd")


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def made(name):
    recipe = Recipe(optimizer=name, preconditioner="none", history_size=5, learning_rate=1e-3)
    return make_optimizer(recipe)


def after(optimizer, objective, position, steps):
    init, step = optimizer

    @jax.jit
    def run(position):
        def body(state, _):
            return step(objective, state)

        return jax.lax.scan(body, init(objective, position), None, length=steps)[0]

    return run(position)


@pytest.mark.parametrize("name", OPTIMIZERS)
class TestEveryOptimizer:
    def test_every_forward_pass_is_counted(self, name):
        passes = 0

        def count():
            nonlocal passes
            passes += 1

        def objective(x):
            jax.debug.callback(count)
            value = rosenbrock(x)
            return value, {"sum": jnp.sum(x), "value": value}

        state = after(made(name), objective, jnp.array([-1.2, 1.0, 0.3]), 12)
        jax.effects_barrier()
        assert passes == state.evaluations
        # And the aux is that of the point.
        np.testing.assert_allclose(
            state.point.aux["sum"], jnp.sum(state.point.position), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(state.point.aux["value"], state.point.value, rtol=1e-5)

    def test_a_pytree_is_its_raveled_vector(self, name):
        def of_tree(tree):
            return rosenbrock(jnp.concatenate([tree["a"].ravel(), tree["b"][0][None]]))

        tree = {"a": jnp.array([[-1.2, 1.0]]), "b": [jnp.array(0.3)]}
        state = after(made(name), of_tree, tree, 6)
        flat = after(made(name), rosenbrock, jnp.array([-1.2, 1.0, 0.3]), 6)
        for of_state, of_flat in (
            (state.point.position, flat.point.position),
            (state.point.grad, flat.point.grad),
        ):
            # Other programs, which XLA may round otherwise.
            np.testing.assert_allclose(of_state["a"], of_flat[None, :2], rtol=1e-5)
            np.testing.assert_allclose(of_state["b"][0], of_flat[2], rtol=1e-5)
        assert state.point.aux is None

    @pytest.mark.parametrize("bits", [32, 64])
    def test_a_value_of_another_float_type(self, name, bits, x64):
        with x64():

            def objective(x):
                return rosenbrock(x.astype(jnp.float64 if bits == 32 else jnp.float32)), jnp.sum(x)

            state = after(made(name), objective, jnp.array([-1.2, 1.0], f"float{bits}"), 4)
            assert state.point.value.dtype == state.point.position.dtype == f"float{bits}"
            assert np.isfinite(state.point.value)

    def test_a_position_of_half_precision_keeps_its_type(self, name):
        def bowl(x):
            return jnp.sum((x - 1) ** 2)

        state = after(made(name), bowl, jnp.zeros(3, jnp.bfloat16), 4)
        assert state.point.position.dtype == jnp.bfloat16
        assert np.isfinite(state.point.value) and state.point.value <= 3

    def test_the_state_may_be_donated(self, name):
        init, step = made(name)
        donating = jax.jit(lambda state: step(rosenbrock, state), donate_argnums=0)
        state = init(rosenbrock, jnp.array([-1.2, 1.0]))
        first = float(state.point.value)
        for _ in range(4):
            state, _ = donating(state)
        assert state.point.value < first


@pytest.mark.parametrize("scale", [2.0**110, 2.0**-110])
def test_values_of_any_size_take_the_same_path(scale):
    def objective(x, factor):
        return factor * jnp.sum((x - 1) ** 2 * jnp.array([1.0, 3.0, 10.0])), None

    start = jnp.array([2.0, -1.0, 0.5])
    usual = after(lbfgs(), lambda x: objective(x, 1.0), start, 6)
    extreme = after(lbfgs(), lambda x: objective(x, scale), start, 6)
    np.testing.assert_allclose(extreme.point.position, usual.point.position, rtol=1e-6)
    np.testing.assert_allclose(extreme.point.value / scale, usual.point.value, rtol=1e-3)
    assert usual.point.value < 1e-3
    np.testing.assert_array_equal(usual.unit, 1)


@pytest.mark.parametrize(
    ("objective", "position", "said"),
    [
        (jnp.sum, jnp.ones(3, jnp.complex64), ["position", "complex64", "real and imaginary"]),
        (jnp.sum, jnp.ones(3, jnp.int32), ["position", "int32"]),
        (jnp.sum, {"a": jnp.ones(3, jnp.int32)}, ["position", "int32"]),
        (jnp.sum, [], ["position", "nothing"]),
        (lambda x: x, jnp.ones(3, jnp.float32), ["objective", "float32[3]", "(value, aux)"]),
        (lambda x: {"loss": jnp.sum(x)}, jnp.ones(3), ["objective", "dict", "(value, aux)"]),
        (
            lambda x: jnp.sum(x) * jnp.complex64(1j),
            jnp.ones(3, jnp.float32),
            ["objective", "complex64"],
        ),
    ],
)
def test_what_cannot_be_optimized_is_named(objective, position, said):
    with pytest.raises(JaxstyleError) as error:
        lbfgs().init(objective, position)
    assert all(word in str(error.value) for word in said), error.value
