"""Published peaks of accelerators, by the name that `plan --target` takes."""

from typing import NamedTuple


class Accelerator(NamedTuple):
    """Published peaks of one accelerator."""

    memory: int
    """Bytes of memory."""
    bandwidth: float
    """Bytes per second between memory and processor."""
    float32: float
    """Floating-point operations per second in float32."""
    tf32: float
    """Operations per second with TF32 products; `float32` if there are none, `bfloat16` on TPUs."""
    bfloat16: float
    """Operations per second with dense bfloat16 products (float16 on T4)."""
    channel_multiple: int = 1
    """The channels of a feature map are padded to a multiple of this in memory."""


ACCELERATORS: dict[str, Accelerator] = {
    "t4": Accelerator(16 * 10**9, 320e9, 8.1e12, 8.1e12, 65e12),
    "l4": Accelerator(24 * 10**9, 300e9, 30.3e12, 60e12, 121e12),
    "a100": Accelerator(40 * 10**9, 1555e9, 19.5e12, 156e12, 312e12),
    "h100": Accelerator(80 * 10**9, 3350e9, 67e12, 495e12, 989e12),
    "tpu-v5e": Accelerator(16 * 10**9, 819e9, 197e12 / 6, 197e12, 197e12, channel_multiple=128),
}
"""Peaks from NVIDIA's data sheets (A100 with 40 GB, H100 SXM; without sparsity) and Google's page
on the TPU v5e, whose float32 products are six bfloat16 products."""
