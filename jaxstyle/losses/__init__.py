"""Content, style and total-variation losses, masks, and the objective they add up to."""
