"""Reports of a run, records inside images, and checkpoints."""
