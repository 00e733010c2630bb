"""Errors that a user can correct: one clear line, exit code 2."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from offmarl.datasets.damaged import short_message


class UserError(ValueError):
    """Wrong input. The message says what, where, and how to correct it, in one line whatever it quotes."""

    in_a_line = True  # for the command line: say no more than the message

    def __init__(self, message: str):
        super().__init__(" ".join(message.splitlines()))


@contextmanager
def refusing(fault: str) -> Iterator[None]:
    """Raise any exception of the block, which reads what others may have written, as a UserError of this fault."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{fault} ({short_message(error)})") from error


def check_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is known. Raises UserError naming the nearest known name."""
    known = list(known)
    if name not in known:
        from offmarl.benchmarks.yaml_files import unknown

        raise UserError(unknown(kind, name, known))
    return name
