"""Settings of a run: `Recipe`, its defaults, choices, checks and presets; without JAX but in
`numbers`."""
