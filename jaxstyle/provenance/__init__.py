"""Reports, records inside images, and checkpoints of a run."""
