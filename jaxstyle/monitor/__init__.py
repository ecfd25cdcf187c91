"""A run watched: progress lines, notebooks and a page in the browser."""
