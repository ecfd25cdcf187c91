"""A run: the problem, its compiled programs, the loop over its steps, and the results."""
