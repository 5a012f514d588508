"""The one exception for bad input: its message is a single line that names the value and the mend."""


class InputError(ValueError):
    """Something the user gave cannot be used; the command line prints the message and exits with 2."""
