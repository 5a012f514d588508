"""Bad input, a machine that is taken away, and how the errors of libraries are put into one line."""


class InputError(ValueError):
    """Something the user gave cannot be used; the command line prints the message and exits with 2.

    The message is a single line that names the value and the mend.
    """


class Preempted(KeyboardInterrupt):
    """SIGTERM has stopped a training after its checkpoint; the command line exits with 75: try again later."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a colon at its end; the error's type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" :") if lines else type(error).__name__
