"""Sharding of a run over several devices: by batch element, or by the rows of one image.

Batch elements are independent: each device runs the program for its own elements, without
communication. Rows are not: the program is written for the whole image, and XLA's partitioner
assigns rows to each device, exchanges one row with the neighbors for every convolution, and sums
over devices where the program sums over positions. The rows must divide evenly at every layer, so
the image is padded below until every device has the same number of whole cells of the deepest
layer. Sums exclude the padding.

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
    """Return the devices, of all processes, that an argument selects.

    Raises:
      JaxstyleError: there is no device, one is repeated, or there are not as many.
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

    `"all"` selects the largest number of devices that divides the batch size. Other numbers are
    checked by `BatchSharding.over`.

    Args:
      devices: requested devices.
      elements: batch size; 1 for one image.

    Raises:
      JaxstyleError: as in `select_devices`.
    """
    chosen = select_devices(devices)
    return (
        chosen[: _divisor(elements, len(chosen))] if devices == "all" and elements > 1 else chosen
    )


def _divisor(elements: int, devices: int) -> int:
    """Return the largest number of devices that divides the batch size."""
    return max(n for n in range(1, devices + 1) if elements % n == 0)


def device_mesh(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """Return a mesh with one axis."""
    # The partitioner shards the operations on rows (Auto).
    return Mesh(np.array(devices), (axis,), axis_types=(AxisType.Auto,))


def put_on_devices(tree: Any, sharding: NamedSharding) -> Any:
    """Return arrays placed on devices; each process provides the shards of its own devices."""
    if not sharding.is_fully_addressable:
        tree = jax.tree.map(np.asarray, tree)
    return jax.device_put(tree, sharding)


def gather(tree: Any) -> Any:
    """Return arrays with the shards of other processes gathered."""
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
    """The even sharding of a batch by element; hashable, for static arguments."""

    mesh: Mesh
    """Mesh with the axis `batch`."""

    @classmethod
    def over(cls, devices: Sequence[jax.Device], elements: int) -> "BatchSharding":
        """Build the sharding of a number of batch elements over devices.

        Raises:
          JaxstyleError: the number of devices does not divide the batch size.
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
          function: batched function; the batch axis of results and arguments is the first.
          axes: 0 for each argument with a batch axis, None for the others.
        """
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=tuple(PartitionSpec(*[] if a is None else ["batch"]) for a in axes),
            out_specs=PartitionSpec("batch"),
            # The loops of optax's and jaxopt's line searches lack the annotations.
            check_vma=False,
        )


@dataclass(frozen=True)
class SpatialSharding:
    """The even sharding of one image by rows; hashable, for static arguments."""

    mesh: Mesh
    """Mesh with the axis `rows`."""
    height: int
    """Rows of the image; arrays have `padded` rows."""
    cell: int
    """Stride of the deepest layer in pixels."""

    @classmethod
    def over(cls, devices: Sequence[jax.Device], height: int, cell: int) -> "SpatialSharding":
        """Build the sharding of an image's rows, in whole cells, over devices."""
        return cls(device_mesh(devices, "rows"), height, cell)

    @property
    def padded(self) -> int:
        """Rows of arrays: those of the image and of its padding."""
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
        """Return values at the positions of a layer, padded like the image, on the devices.

        Args:
          values: `[h, w, n]`, without padding.
          cell: stride of the layer in pixels.
        """
        below = self.padded // cell - np.shape(values)[0]
        return jax.device_put(np.pad(values, ((0, below), (0, 0), (0, 0))), self.by_row)

    def fetch(self, image: jax.Array) -> np.ndarray:
        """Return an image on the host, without its padding."""
        return np.asarray(jax.device_get(gather(image)))[: self.height]

    def constrain(self, state: Any, width: int) -> Any:
        """Return an optimizer's state constrained to the sharding of its position.

        Args:
          state: pytree of arrays. Arrays whose last axes are `[padded, w, 3]`, or these flattened,
            are sharded; others are replicated.
          width: w, the width of the image in pixels.
        """
        return jax.tree.map(
            lambda leaf: lax.with_sharding_constraint(leaf, self._sharding(leaf.shape, width)),
            state,
        )

    def unpad(self, state: Any, width: int) -> Any:
        """Return a state without the padding, which does not depend on the number of devices."""

        def unpadded(leaf: Any) -> Any:
            axis, unit = _row_axis(leaf.shape, self.padded, width)
            if axis is None:
                return leaf
            return leaf[(..., slice(self.height * unit), *[slice(None)] * (-1 - axis))]

        return jax.tree.map(unpadded, state)

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
        """Return the sharding of an array of a state, by its shape."""
        axis, _ = _row_axis(shape, self.padded, width)
        axes = [None] * len(shape) if axis is None else [None] * (len(shape) + axis) + ["rows"]
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def _row_axis(shape: tuple[int, ...], height: int, width: int) -> tuple[int | None, int]:
    """Return the axis of an array that runs along the rows, and its entries per row."""
    if shape[-3:] == (height, width, 3):
        return -3, 1
    if shape[-1:] == (height * width * 3,):
        return -1, width * 3
    return None, 0


Layout = BatchSharding | SpatialSharding
