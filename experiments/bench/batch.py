"""Images a second in one vmapped program, against one image at a time.

    python experiments/bench/batch.py [--size 256] [--batches 1 2 4 8 16 32] [--steps 50]
        [--network full] [--repeats 3]

L-BFGS from noise, a seed a batch element, random VGG-19 of full widths or weights by name. Seconds
are those of running (medians); compiling is a column of its own. Runs on whatever device JAX finds
and names it. Prints a Markdown table.
"""

import argparse
import statistics

import jax
from evaluation import random_vgg19

import jaxstyle


def run(problem: jaxstyle.Problem) -> tuple[float, float]:
    """Run a problem; seconds of compiling and of running."""
    compiling = running = 0.0
    for iterate in jaxstyle.iterates(problem):
        compiling += iterate.compile_seconds
        running += iterate.run_seconds
    return compiling, running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--network", default="full", help="full, or weights by name")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="tf32")
    arguments = parser.parse_args()
    full = arguments.network == "full"
    network = random_vgg19() if full else jaxstyle.load_network(arguments.network)
    side = arguments.size
    content, style = jax.random.uniform(jax.random.key(0), (2, side, side, 3))
    recipe = jaxstyle.Recipe(
        style_loss="gram", size=0, steps=arguments.steps, init="noise",
        precision=arguments.precision,
    )  # fmt: skip
    print(f"{jax.devices()[0].device_kind}, {side} px, {arguments.steps} steps\n")
    print("| images | compile (s) | run (s) | images a second | to the first row |")
    print("|---" * 5 + "|")
    alone = None
    for count in arguments.batches:
        problem = jaxstyle.prepare(
            content, style, recipe=recipe, network=network, elements=["noise"] * count
        )
        runs = [run(problem) for _ in range(arguments.repeats + 1)]
        seconds = statistics.median(running for _, running in runs[1:])
        rate = count / seconds
        alone = rate if alone is None else alone
        print(
            f"| {count} | {runs[0][0]:.1f} | {seconds:.2f} | {rate:.3f} | {rate / alone:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
