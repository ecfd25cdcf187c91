"""Ways to watch a run: progress lines, notebooks and a page in the browser."""
