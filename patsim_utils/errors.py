"""The one error that is the user's to mend: the command line shows it as one line and exits with status 2."""

from pathlib import Path


class InputError(ValueError):
    """Bad data, parameter or path; `str(error)` is one printable line: the place, the value and what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(letter if letter.isprintable() else " " for letter in message))


def clip(value: object, longest: int = 200) -> str:
    """A value as a message shows it: text in quotes, no control characters, at most `longest` characters."""
    text = repr(value) if isinstance(value, str) else str(value)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def named(path: str | Path) -> str:
    """A path as a message shows it: without quotes and, of a long one, the end."""
    text = str(path) if str(path).isprintable() else repr(str(path))[1:-1]
    return text if len(text) <= 200 else "…" + text[-199:]
