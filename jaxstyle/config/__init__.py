"""Settings of a run: `Recipe`, its defaults, choices, checks and presets. Imports no JAX."""
