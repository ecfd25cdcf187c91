"""The 3x3 convolution of the network, with a gradient that is also fast in loops on a CPU."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxstyle.nn import winograd

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
PRECISIONS = {
    "tf32": lax.Precision.DEFAULT,
    "float32": lax.Precision.HIGHEST,
    # Products of bfloat16 are exact in float32; the image itself is float32.
    "bfloat16": lax.Precision.HIGHEST,
}
"""Precision of products by the value of `Recipe.precision`: TF32 on GPUs that have it (bfloat16 on
TPUs, float32 on CPUs), float32 everywhere, or bfloat16 inputs. Sums are in float32."""


def use_winograd(height: int, width: int, channels: int, width_out: int) -> bool:
    """Return whether `winograd` is faster than the direct convolution of a map on CPU.

    Measured on two x86 CPUs, forward pass and gradient (`experiments/bench/convolutions.py`): with
    128 channels or more it takes 0.34 to 0.84 times as long, even at 32 pixels. With 64 channels
    the same holds for small maps, but on one CPU large maps take up to 1.23 times as long. With
    fewer channels the additions cost more than the saved products. GPUs and TPUs have fast
    convolutions of their own.

    Args:
      height: rows of the map.
      width: columns of the map.
      channels: input channels.
      width_out: output channels.
    """
    narrow = min(channels, width_out)
    deep = narrow >= 128 or (narrow >= 64 and height * width <= 128 * 128)
    return deep and height * width >= 16 * 16


def convolve(
    x: jax.Array, kernel: jax.Array, transformed: jax.Array | None = None, precision: str = "tf32"
) -> jax.Array:
    """Compute the zero-padded cross-correlation of a map with 3x3 kernels.

    Args:
      x: `[h, w, i]`.
      kernel: `[3, 3, i, o]`, of the map's type.
      transformed: the kernel transformed by `winograd.transform`, used on CPUs if it is faster
        (`use_winograd`); it is not differentiated.
      precision: one of `PRECISIONS`.

    Returns:
      `[h, w, o]`.
    """
    optional = () if transformed is None else (transformed,)
    y: jax.Array = _convolve_p.bind(x, kernel, *optional, precision=precision, flipped=False)
    return y


def _correlate(x: jax.Array, kernel: jax.Array, precision: str) -> jax.Array:
    """Compute the cross-correlation directly, without Winograd's transformation."""
    if precision == "bfloat16":
        # XLA's CPU backend of JAX 0.12 fuses pooling and two convolutions of bfloat16 to a kernel
        # with wrong numbers, many of them not finite. Separate convolutions are correct.
        x, kernel = _unfused_on_cpu((x, kernel))
    return lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME",
        dimension_numbers=_DIMENSIONS, precision=PRECISIONS[precision],
    )[0]  # fmt: skip


def _unfused_on_cpu(arrays: Any) -> Any:
    """Return the same arrays, behind a barrier for the compiler on CPUs.

    It prevents that the operations which compute them are fused with those that use them.
    """
    return lax.platform_dependent(arrays, cpu=lax.optimization_barrier, default=lambda x: x)


def _convolve(
    x: jax.Array, kernel: jax.Array, *transformed: jax.Array, precision: str, flipped: bool
) -> jax.Array:
    """Compute the value of the primitive.

    If `flipped`, the kernel is rotated by 180 degrees and its channels are swapped, which gives the
    gradient with respect to the map. Code for CPUs is selected when the program is lowered, so that
    a CPU can compile for other devices.
    """

    def direct(x: jax.Array, kernel: jax.Array, *_: jax.Array) -> jax.Array:
        if flipped:
            # Otherwise XLA folds the swap into the convolution's layout, for which the CPU has no
            # fast routine inside a loop: the gradient then takes four times as long.
            kernel = _unfused_on_cpu(_flip(kernel))
        return _correlate(x, kernel, precision)

    def filtered(x: jax.Array, _: jax.Array, transformed: jax.Array) -> jax.Array:
        return winograd.convolve(x, transformed, flipped=flipped)

    if transformed and use_winograd(*x.shape[:2], *kernel.shape[2:]):
        return lax.platform_dependent(x, kernel, *transformed, cpu=filtered, default=direct)
    return direct(x, kernel)


def _flip(kernel: jax.Array) -> jax.Array:
    """Return kernels `[3, 3, i, o]` rotated by 180 degrees, with channels swapped."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


# A primitive, as `jax.custom_vjp` has no forward-mode derivative and always computes the gradient
# with respect to the kernel.
_convolve_p = Primitive("convolve_3x3")
_convolve_p.def_impl(jax.jit(_convolve, static_argnames=("precision", "flipped")))


@_convolve_p.def_abstract_eval
def _shape(x: Any, kernel: Any, *transformed: Any, precision: str, flipped: bool) -> Any:
    return x.update(shape=(*x.shape[:2], kernel.shape[2 if flipped else 3]), weak_type=False)


def _jvp(primals: Any, tangents: Any, *, precision: str, flipped: bool) -> tuple[Any, Any]:
    """Return value and tangent; the value is linear in the map and in the kernel."""
    x, kernel, *transformed = primals
    of_x, of_kernel, *_ = tangents
    static = {"precision": precision, "flipped": flipped}
    y = _convolve_p.bind(*primals, **static)
    parts = []
    if not isinstance(of_x, ad.Zero):
        parts.append(_convolve_p.bind(of_x, kernel, *transformed, **static))
    if not isinstance(of_kernel, ad.Zero):
        of_kernel = _flip(of_kernel) if flipped else of_kernel
        parts.append(_correlate(x, of_kernel, precision))
    return y, sum(parts[1:], parts[0]) if parts else ad.Zero(jax.typeof(y))


def _transpose(
    cotangent: Any, x: Any, kernel: Any, *transformed: Any, precision: str, flipped: bool
) -> list[Any]:
    """Return the cotangent of the map: a convolution with the flipped kernel."""
    if isinstance(cotangent, ad.Zero):
        of_x = ad.Zero(x.aval)
    else:
        of_x = _convolve_p.bind(
            cotangent, kernel, *transformed, precision=precision, flipped=not flipped
        )
    return [of_x, None, *(None for _ in transformed)]


def _batch(args: Any, axes: Any, **static: Any) -> tuple[Any, int]:
    return jax.vmap(partial(_convolve, **static), in_axes=axes)(*args), 0


ad.primitive_jvps[_convolve_p] = _jvp
ad.primitive_transposes[_convolve_p] = _transpose
batching.primitive_batchers[_convolve_p] = _batch
mlir.register_lowering(_convolve_p, mlir.lower_fun(_convolve, multiple_results=False))
