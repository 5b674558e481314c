"""What is raised where the mistake is the caller's; the message says what was expected, what was given, what to do.

A command ends on these with their message alone and status 2 (`jxai.cli`); any other error is a fault of the program
and keeps its traceback. What the operating system refuses stays the OSError that it is.
"""


class InputError(ValueError):
    """A value that is not what was expected."""


class InputTypeError(InputError, TypeError):
    """An argument of another type than was expected."""
