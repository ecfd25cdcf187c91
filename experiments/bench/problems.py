"""`lbfgs` and the L-BFGS of others on small public test problems without constraints.

    pip install sif2jax optimistix
    python experiments/bench/problems.py [--precision float32] [--only lbfgs SciPy optax optimistix]

The problems are those of `PROBLEMS` in sif2jax, from its own starts; a third of them are of Moré,
Garbow & Hillstrom, Testing Unconstrained Optimization Software, 1981. They were chosen by their
size, 2 to 11 variables, before any was run. Every optimizer keeps 20 pairs and never stops by
itself.

A problem is solved by the first evaluation at which f <= f_L + 1e-5 (f_0 - f_L), f_L the lowest
value that any of the optimizers has within 1000 evaluations (Moré & Wild, Benchmarking
Derivative-Free Optimization Algorithms, 2009, equation 2.2), which may be that of another minimum.
A trial of a line search is an evaluation, with its gradient or without.

Prints a Markdown table: how many problems each fails to solve and which, and the median of the
evaluations over all problems.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jaxstyle import lbfgs
from jaxstyle.optim.base import Optimizer
from jaxstyle.optim.line_search import optax_lbfgs

PROBLEMS = (
    "AKIVA", "ALLINITU", "BARD", "BEALE", "BIGGS6", "BOX3", "BROWNBS", "BROWNDEN", "CLIFF",
    "CLUSTERLS", "CUBE", "DENSCHNA", "DENSCHNB", "DENSCHNC", "DENSCHND", "DENSCHNE", "DENSCHNF",
    "ENGVAL2", "EXPFIT", "GAUSSIAN", "HAIRY", "HATFLDD", "HATFLDE", "HEART6LS", "HELIX",
    "HIMMELBCLS", "HIMMELBG", "HIMMELBH", "JENSMP", "JUDGE", "KOWOSB", "MARATOSB", "OSBORNEA",
    "OSBORNEB", "RAT42LS", "ROSENBR", "S308", "SISSER", "ZANGWIL2",
)  # fmt: skip
BUDGET = 1000
PAIRS = 20
TOLERANCE = 1e-5

Value = Callable[[jax.Array], jax.Array]
Curve = np.ndarray
"""The lowest value after each of `BUDGET` evaluations."""


def of_steps(evaluations: Any, values: Any) -> Curve:
    """Return the lowest value after each evaluation, from those after each step."""
    curve = np.full(BUDGET, np.inf)
    evaluations, values = np.asarray(evaluations), np.asarray(values, np.float64)
    within = (evaluations <= BUDGET) & np.isfinite(values)
    np.minimum.at(curve, evaluations[within] - 1, values[within])
    return np.minimum.accumulate(curve)


def of_pairs_of_functions(optimizer: Optimizer, value: Value, start: jax.Array) -> Curve:
    """Run an optimizer behind our interface."""

    @jax.jit
    def run(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(state: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            state, info = optimizer.step(value, state)
            return state, (info.evaluations, info.value)

        state = optimizer.init(value, start)
        _, (evaluations, values) = jax.lax.scan(step, state, length=BUDGET - 1)
        first = state.evaluations, state.point.value
        return jnp.append(first[0], evaluations), jnp.append(first[1], values)

    return of_steps(*run(start))


def of_scipy(value: Value, start: jax.Array) -> Curve:
    """Run SciPy's L-BFGS-B, given values and gradients in the precision of the start."""
    gradient = jax.jit(jax.value_and_grad(value))
    values: list[float] = []

    def evaluated(x: np.ndarray) -> tuple[float, np.ndarray]:
        found, grad = gradient(jnp.asarray(x, start.dtype))
        values.append(float(found))
        return values[-1], np.asarray(grad, np.float64)

    scipy.optimize.minimize(
        evaluated, np.asarray(start, np.float64), jac=True, method="L-BFGS-B",
        options={"maxcor": PAIRS, "maxfun": BUDGET, "maxiter": BUDGET, "ftol": 0, "gtol": 0},
    )  # fmt: skip
    return of_steps(np.arange(len(values)) + 1, values)


def of_optimistix(value: Value, start: jax.Array) -> Curve:
    """Run optimistix's L-BFGS, a trial of its search a step."""
    import equinox
    import optimistix

    solver = optimistix.LBFGS(rtol=0.0, atol=0.0, history_length=PAIRS)
    # What `minimise` gives a solver: the function with its aux, arguments, options and tags.
    given = (lambda y, _: (value(y), None)), start, None, {}

    @jax.jit
    def run(start: jax.Array) -> jax.Array:
        function, _, *rest = given

        form = jax.ShapeDtypeStruct((), start.dtype)
        state = solver.init(function, start, *rest, form, None, frozenset())
        arrays, others = equinox.partition(state, equinox.is_array)

        def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
            y, arrays = carry
            state = equinox.combine(arrays, others)
            y, state, _ = solver.step(function, y, *rest, state, frozenset())
            return (y, equinox.filter(state, equinox.is_array)), state.f_info.f

        return jax.lax.scan(step, (start, arrays), length=BUDGET)[1]

    return of_steps(np.arange(BUDGET) + 1, run(start))


OPTIMIZERS: dict[str, Callable[[Value, jax.Array], Curve]] = {
    "lbfgs": partial(of_pairs_of_functions, lbfgs(history_size=PAIRS)),
    "SciPy": of_scipy,
    "optax": partial(of_pairs_of_functions, optax_lbfgs(history_size=PAIRS)),
    "optimistix": of_optimistix,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32")
    parser.add_argument("--only", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    arguments = parser.parse_args()
    from sif2jax import cutest

    # Whatever was set when sif2jax was imported, and before any problem makes its arrays.
    jax.config.update("jax_enable_x64", arguments.precision == "float64")
    spent: dict[str, list[float]] = {name: [] for name in arguments.only}
    for problem in PROBLEMS:
        made = getattr(cutest, problem)()
        start = jnp.asarray(made.y0, arguments.precision)

        def value(y: jax.Array, made: Any = made, start: jax.Array = start) -> jax.Array:
            return jnp.asarray(made.objective(y, made.args), start.dtype)

        curves = {name: OPTIMIZERS[name](value, start) for name in arguments.only}
        first, lowest = float(value(start)), min(curve[-1] for curve in curves.values())
        for name, curve in curves.items():
            solved = np.flatnonzero(curve <= lowest + TOLERANCE * (first - lowest))
            spent[name].append(solved[0] + 1 if len(solved) else np.inf)
        print(problem, first, lowest, {name: runs[-1] for name, runs in spent.items()}, flush=True)
    print("\n| optimizer | failed | median evaluations | which |\n|---|---|---|---|")
    for name, runs in spent.items():
        failed = [p for p, run in zip(PROBLEMS, runs, strict=True) if np.isinf(run)]
        print(f"| {name} | {len(failed)} | {np.median(runs):.0f} | {', '.join(failed)} |")


if __name__ == "__main__":
    main()
