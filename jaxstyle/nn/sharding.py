"""Sharding of a run over several devices: by batch element, or by the rows of one image.

Batch elements are independent: each device runs the program for its own elements, without any
communication. Rows are not: the program is written for the whole image, and XLA's partitioner
assigns each device its rows, exchanges one row with the neighbors for every convolution and sums
over devices where the program sums over positions. The rows must divide evenly at every layer, so
the image is padded below, to as many whole cells of the deepest layer on every device. All sums
leave the padding out.

Reference:
  Xu et al., GSPMD: General and Scalable Parallelization for ML Computation Graphs,
  arXiv:2105.04663, sections 3.5 and 4.3 (halo exchange); Krizhevsky, One weird trick for
  parallelizing convolutional neural networks, arXiv:1404.5997.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxstyle.errors import JaxstyleError

Devices = int | str | Sequence[jax.Device] | None
"""A number of `jax.devices()`, `"all"` of them, or a list of devices; None for one device."""


def select_devices(devices: Devices) -> list[jax.Device]:
    """Return the devices that an argument selects, of all processes.

    Raises:
      JaxstyleError: no device, one listed twice, or more than there are.
    """
    if devices is None:
        return [jax.local_devices()[0]]
    if not isinstance(devices, int | str):
        chosen = list(devices)
        if not chosen or len(set(chosen)) < len(chosen):
            raise JaxstyleError(f"devices: {chosen} is not a list of different devices")
        return chosen
    present = jax.devices()
    if devices == "all":
        return list(present)
    if isinstance(devices, str) or not 1 <= devices <= len(present):
        there = "there is" if len(present) == 1 else "there are"
        kinds = ", ".join(sorted({device.device_kind for device in present}))
        raise JaxstyleError(
            f"devices: {devices} cannot be had, {there} {len(present)} ({kinds}); give a number "
            f"from 1 to {len(present)}, or all"
        )
    return list(present[:devices])


def sharing_devices(devices: Devices, elements: int) -> list[jax.Device]:
    """Return the devices that share a batch, or the rows of one image.

    With `"all"` the largest number that divides the batch evenly.

    Args:
      devices: what was asked for.
      elements: number of batch elements; 1 for one image.

    Raises:
      JaxstyleError: as for `select_devices`; whether batch elements divide evenly is checked by
        `BatchSharding.over`.
    """
    chosen = select_devices(devices)
    return (
        chosen[: _divisor(elements, len(chosen))] if devices == "all" and elements > 1 else chosen
    )


def _divisor(elements: int, devices: int) -> int:
    """Return the largest number of devices that divides the batch elements evenly."""
    return max(n for n in range(1, devices + 1) if elements % n == 0)


def device_mesh(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """Return a mesh with one axis."""
    # Sharding of rows relies on the partitioner's choices (Auto).
    return Mesh(np.array(devices), (axis,), axis_types=(AxisType.Auto,))


def put_on_devices(tree: Any, sharding: NamedSharding) -> Any:
    """Return arrays placed on devices; each process provides the shards of its own devices."""
    if not sharding.is_fully_addressable:
        tree = jax.tree.map(np.asarray, tree)
    return jax.device_put(tree, sharding)


def gather(tree: Any) -> Any:
    """Return whole arrays, gathered where other processes hold some of their shards."""
    return jax.tree.map(
        lambda leaf: (
            multihost_utils.process_allgather(leaf, tiled=True)
            if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
            else leaf
        ),
        tree,
    )


@dataclass(frozen=True)
class BatchSharding:
    """The sharding of a batch by element, evenly. Hashable, to be a static argument."""

    mesh: Mesh

    @classmethod
    def over(cls, devices: Sequence[jax.Device], elements: int) -> "BatchSharding":
        """Build the sharding of a number of batch elements over devices.

        Raises:
          JaxstyleError: the elements do not divide evenly.
        """
        if elements % len(devices):
            most = _divisor(elements, len(devices))
            raise JaxstyleError(
                f"devices: {elements} images do not share out over {len(devices)} devices; give "
                f"{most} devices, or {-(-elements // len(devices)) * len(devices)} images"
            )
        return cls(device_mesh(devices, "batch"))

    @property
    def by_element(self) -> NamedSharding:
        """The sharding of arrays whose first axis is the batch."""
        return NamedSharding(self.mesh, PartitionSpec("batch"))

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of arrays that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def place(self, images: ArrayLike) -> jax.Array:
        """Return a batch `[k, h, w, 3]` placed on the devices."""
        return put_on_devices(images, self.by_element)

    def place_state(self, state: Any, width: int) -> Any:
        """Return an optimizer's state of the whole batch placed on the devices."""
        return put_on_devices(state, self.by_element)

    def with_shardings(self, shapes: Any, width: int) -> Any:
        """Return a state's shapes with their shardings."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.by_element),
            shapes,
        )

    def map_elements(self, function: Callable[..., Any], axes: Sequence[int | None]) -> Any:
        """Return a batched function that runs on each device for its batch elements.

        Args:
          function: its results and arguments have the batch axis first, except arguments whose
            entry in `axes` is None.
          axes: 0 or None for each argument.
        """
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(PartitionSpec(*[] if a is None else ["batch"]) for a in axes),
            out_specs=PartitionSpec("batch"),
            # The loops of optax's and jaxopt's line searches do not annotate what varies.
            check_vma=False,
        )


@dataclass(frozen=True)
class SpatialSharding:
    """The sharding of one image by rows, evenly. Hashable, to be a static argument."""

    mesh: Mesh
    height: int
    """Rows of the image; arrays have `padded` rows."""
    cell: int
    """Pixels along the side of one position of the deepest layer."""

    @classmethod
    def over(cls, devices: Sequence[jax.Device], height: int, cell: int) -> "SpatialSharding":
        """Build the sharding of an image's rows, in whole cells, over devices."""
        return cls(device_mesh(devices, "rows"), height, cell)

    @property
    def padded(self) -> int:
        """Rows of arrays: those of the image and the padding."""
        each = len(self.mesh.devices) * self.cell
        return -(-self.height // each) * each

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of arrays that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def by_row(self) -> NamedSharding:
        """The sharding of arrays whose first axis is the rows."""
        return NamedSharding(self.mesh, PartitionSpec("rows"))

    def with_height(self, height: int) -> "SpatialSharding":
        """Return the sharding of another image over the same devices."""
        return dataclasses.replace(self, height=height)

    def place(self, image: ArrayLike) -> jax.Array:
        """Return an image `[height, w, 3]`, zero-padded to `[padded, w, 3]`, on the devices."""
        array: Any = jnp if isinstance(image, jax.core.Tracer) else np
        padded = array.pad(image, ((0, self.padded - self.height), (0, 0), (0, 0)))
        return jax.device_put(padded, self.by_row)

    def place_map(self, values: ArrayLike, cell: int) -> jax.Array:
        """Return values of the positions of a layer, padded as `place` does, on the devices.

        Args:
          values: `[h, w, any]`, without padding.
          cell: pixels along the side of a position.
        """
        below = self.padded // cell - np.shape(values)[0]
        return jax.device_put(np.pad(values, ((0, below), (0, 0), (0, 0))), self.by_row)

    def fetch(self, image: jax.Array) -> np.ndarray:
        """Return an image on the host, without its padding."""
        return np.asarray(jax.device_get(gather(image)))[: self.height]

    def constrain(self, state: Any, width: int) -> Any:
        """Return an optimizer's state constrained to the sharding of its position.

        Args:
          state: pytree of arrays; those whose last axes are the position's `[padded, w, 3]`, or
            its one axis flattened, are sharded, others are replicated.
          width: w.
        """
        return jax.tree.map(
            lambda leaf: lax.with_sharding_constraint(leaf, self._sharding(leaf.shape, width)),
            state,
        )

    def unpad(self, state: Any, width: int) -> Any:
        """Return a state without the padding, the same for any number of devices."""

        def shorter(leaf: Any) -> Any:
            axis, unit = _row_axis(leaf.shape, self.padded, width)
            if axis is None:
                return leaf
            return leaf[(..., slice(self.height * unit), *[slice(None)] * (-1 - axis))]

        return jax.tree.map(shorter, state)

    def with_shardings(self, shapes: Any, width: int) -> Any:
        """Return a state's shapes with their shardings."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=self._sharding(leaf.shape, width)
            ),
            shapes,
        )

    def place_state(self, state: Any, width: int) -> Any:
        """Return a state, with or without its padding, placed on the devices."""

        def placed(leaf: Any) -> jax.Array:
            axis, unit = _row_axis(leaf.shape, self.height, width)
            if axis is not None:
                ends = [(0, 0)] * leaf.ndim
                ends[axis] = (0, (self.padded - self.height) * unit)
                leaf = np.pad(leaf, ends)
            return jax.device_put(leaf, self._sharding(leaf.shape, width))

        return jax.tree.map(placed, state)

    def _sharding(self, shape: tuple[int, ...], width: int) -> NamedSharding:
        axis, _ = _row_axis(shape, self.padded, width)
        axes = [None] * len(shape) if axis is None else [None] * (len(shape) + axis) + ["rows"]
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def _row_axis(shape: tuple[int, ...], height: int, width: int) -> tuple[int | None, int]:
    """Return the axis of an array that runs along the rows, and its entries for each row."""
    if shape[-3:] == (height, width, 3):
        return -3, 1
    if shape[-1:] == (height * width * 3,):
        return -1, width * 3
    return None, 0


Layout = BatchSharding | SpatialSharding
