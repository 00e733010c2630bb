"""Errors that a user can mend: one clear line, exit code 2."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from offmarl.datasets.damaged import short_message


class UserError(ValueError):
    """The input was wrong. The message says what, where, and how to mend it, in one line whatever it quotes."""

    in_a_line = True  # for the command line: say no more than the message

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


@contextmanager
def refusing(fault: str) -> Iterator[None]:
    """Work on what somebody else may have written, a record or a checkpoint: whatever it raises, the fault is theirs.

    Raises:
        UserError: the fault with the first words of what was raised; one from inside as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{fault} ({short_message(error)})") from error


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is known.

    Raises:
        UserError: naming the nearest known name.
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UserError(f"unknown {kind} '{name}': {hint}known: {', '.join(known)}")
