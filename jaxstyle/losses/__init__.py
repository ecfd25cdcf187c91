"""Content, style and total-variation losses, masks, and the objective, their weighted sum."""
