"""The one exception that means «the person asked for something impossible»."""


class JaxstyleError(ValueError):
    """Bad input or usage; the message names the argument, its value and the way out.

    The command line prints the message on one line and exits with 2. Anything
    else that escapes is a bug of ours and keeps its traceback.
    """


def shortened(value: object) -> str:
    """Print what somebody gave, in so many characters that the message stays readable."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no more digits than some thousands.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
