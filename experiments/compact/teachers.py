"""The two teachers, read from npz files, and the targets that they give.

Exact VGG-19 (normalised) teaches relu1_1 … relu3_4, the layers that its file holds. Deeper
targets come from a distilled VGG-19 with narrow layers, whose 1x1 `aux` maps lead from
relu4_1 and relu5_1 to the 512 channels of VGG-19; its own activations at relu4_2 … relu4_4
stand in where it has no map.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxstyle.vgg import CONVENTIONS, Network, Params, activations

EXACT_FILE = "vgg19_normalised_bgr_conv1_1-conv3_4.npz"
DISTILLED_FILE = "vgg19_compact_teacher_SE5.npz"

EXACT = tuple(f"relu{b}_{i}" for b, n in ((1, 2), (2, 2), (3, 4)) for i in range(1, n + 1))
MAPPED = ("relu4_1", "relu5_1")
HIDDEN = ("relu4_2", "relu4_3", "relu4_4")
TARGETS = (*EXACT, "relu4_1", *HIDDEN, "relu5_1")


def read_exact(path: Path, *, topology: str = "vgg19") -> Network:
    """Read an npz with keys `convX_Y.weight` (OIHW) and `convX_Y.bias`."""
    with np.load(path) as arrays:
        names = sorted({key.split(".")[0] for key in arrays})
        params = {name: _layer(arrays, name) for name in names}
    return Network(params, topology, CONVENTIONS["caffe"], name=path.stem)


def read_distilled(path: Path) -> tuple[Network, Params]:
    """Read the distilled teacher: its network, and its aux maps as `{relu: {kernel, bias}}`.

    Its `conv0` turns RGB in [0, 1] into the Caffe input to within rounding of the mean (0.4 of
    255), so it is left out and the network takes the Caffe input itself.
    """
    with np.load(path) as arrays:
        keys = {key.split(".")[0] for key in arrays} - {"conv0"}
        params = {
            f"conv{k[4]}_{k[5]}": _layer(arrays, k) for k in sorted(keys) if not k.endswith("_aux")
        }
        maps = {
            f"relu{k[4]}_{k[5]}": {
                "kernel": jnp.asarray(arrays[f"{k}.weight"][:, :, 0, 0].T),
                "bias": jnp.asarray(arrays[f"{k}.bias"]),
            }
            for k in sorted(keys)
            if k.endswith("_aux")
        }
    convention = CONVENTIONS["caffe"].replace(padding="reflect")
    return Network(params, "vgg19", convention, name=path.stem), maps


def _layer(arrays: np.lib.npyio.NpzFile, name: str) -> dict[str, jax.Array]:
    kernel = np.ascontiguousarray(arrays[f"{name}.weight"].transpose(2, 3, 1, 0))
    return {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(arrays[f"{name}.bias"])}


def thin(layer: str, x: jax.Array) -> jax.Array:
    """Keep every second row and column of blocks 1 and 2.

    Neighbours there say nearly the same, and a quarter of the positions makes both the
    replay memory and the heads cheaper.
    """
    return x[..., 1::2, 1::2, :] if layer.startswith(("relu1", "relu2")) else x


class Teachers:
    """Both teachers as one function from crops to targets."""

    def __init__(self, folder: Path):
        self._exact = read_exact(folder / EXACT_FILE)
        self._distilled, self._maps = read_distilled(folder / DISTILLED_FILE)
        # The weights are arguments: closed over, the compiler would fold them.
        self._targets = jax.jit(_targets)

    def targets(self, x: jax.Array) -> dict[str, jax.Array]:
        """Compute `{layer: [n, h', w', c]}` for network inputs `[n, h, w, 3]`."""
        return self._targets(self._exact, self._distilled, self._maps, x)


def _targets(
    exact: Network, distilled: Network, maps: Params, x: jax.Array
) -> dict[str, jax.Array]:
    def of_one(network: Network, layers: tuple[str, ...]) -> dict[str, jax.Array]:
        return jax.vmap(lambda one: activations(network, one, layers, pooling="max"))(x)

    found = of_one(exact, EXACT) | of_one(distilled, ("relu4_1", *HIDDEN, "relu5_1"))
    for layer in MAPPED:
        found[layer] = found[layer] @ maps[layer]["kernel"] + maps[layer]["bias"]
    return {layer: thin(layer, found[layer]) for layer in TARGETS}
