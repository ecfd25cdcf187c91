"""A run: the problem, its compiled steps, the loop over them, and results."""
