"""`python -m jaxstyle` is the command `jaxstyle`."""

from jaxstyle.cli import main

main()
