"""The one exception that means «the person asked for something impossible»."""


class JaxstyleError(ValueError):
    """Bad input or usage; the message names the argument, its value and the way out.

    The command line prints the message on one line and exits with 2. Anything
    else that escapes is a bug of ours and keeps its traceback.
    """
