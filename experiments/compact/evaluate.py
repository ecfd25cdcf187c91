"""Measure finished networks on the held-out photographs.

    python experiments/compact/evaluate.py --photos PHOTOS --teachers WEIGHTS \\
        weights/compact.safetensors weights/medium.safetensors --run RUN

For each network and layer 1 - R**2 of the best linear head, as in training: the heads are fitted
anew by least squares to the same training crops for all, and judged on the held-out photographs'
middles. The networks have their own padding; VGG-19, the teacher of blocks 1 to 3, is computed
once with reflection and once with the zeros that it was trained with. Float32. Prints a Markdown
table.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from data import Crops, load_photos, load_pool, split
from teachers import TARGETS, Teachers
from train import EVALUATION_SIDE, as_input, evaluate, read_start
from widen import fit_heads

from jaxstyle.nn.preprocessing import CONVENTIONS
from jaxstyle.weights.weight_file import read_network


def main() -> None:
    """Read the arguments, fit, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("networks", nargs="+", type=Path, help="weights files")
    add("--photos", type=Path, required=True, help="folder of JPEG photographs")
    add("--teachers", type=Path, required=True, help="folder of the teachers' npz files")
    add("--run", type=Path, required=True, help="a run's --out, for its generated images")
    add("--batches", type=int, default=60, help="of 6 crops for the heads (%(default)s)")
    arguments = parser.parse_args()
    held_in, held_out = split(load_photos(arguments.photos))
    pool = load_pool(arguments.run / "pool.npy", held_in, 400, 0)
    print("| network | VGG-19's padding | " + " | ".join(TARGETS) + " |")
    print("| --- | --- |" + " ---: |" * len(TARGETS))
    for padding in ("reflect", "zeros"):
        teachers = Teachers(arguments.teachers, padding=padding)
        source = Crops(held_in, pool, 128, CONVENTIONS["caffe"].mean, seed=99)
        crops = [np.stack([source.crop() for _ in range(6)]) for _ in range(arguments.batches)]
        inputs = [as_input(c) for c in crops]
        batches = [(x, teachers.targets(x)) for x in inputs]
        for path in arguments.networks:
            student, own = read_start(path), read_network(path).convention.padding
            heads = fit_heads(student, batches, padding=own)
            found = evaluate(
                student,
                heads,
                teachers,
                held_out,
                EVALUATION_SIDE,
                dtype=torch.float32,
                padding=own,
            )
            row = " | ".join(f"{found[layer]:.3f}" for layer in TARGETS)
            print(f"| {path.stem} | {padding} | {row} |", flush=True)


if __name__ == "__main__":
    main()
