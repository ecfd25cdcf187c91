"""What is written about a run: reports, records inside images, checkpoints."""
