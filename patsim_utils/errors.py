"""The one error that is the user's to mend: the command line shows it as one line and exits with status 2."""


class InputError(ValueError):
    """Bad data, parameter or path; `str(error)` is one line: the place, the value and what is allowed."""
