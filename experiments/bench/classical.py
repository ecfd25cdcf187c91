"""The classical objective, which PyTorch is compared on; imports neither JAX nor PyTorch."""

from typing import Any

CLASSICAL: dict[str, Any] = {
    "style_loss": "gram",
    "scales": 1, "pyramid": 1, "margin": 0, "variation": "absolute", "style_weight": 100.0,
    "tv_weight": 1e-6,
}  # fmt: skip
"""Settings of a recipe whose objective `torch_objective.TorchObjective` computes."""
