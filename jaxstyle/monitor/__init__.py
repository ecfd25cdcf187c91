"""Display of a run's progress: on the terminal, in notebooks and on a page in the browser."""
