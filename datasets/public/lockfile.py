"""The memory of downloads: every file's size and SHA-256 as it first came, in one JSON file of the data folder.

<root>/offmarl-lock.json   `<into>/<name>` -> sha256, size, url, date, files (path under root -> size, sha256)
"""

import fcntl
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from offmarl.datasets.dataset import file_sum

LOCK = "offmarl-lock.json"


def read_lock(root: Path) -> dict[str, dict[str, Any]]:
    """The entries of the lock file by `Download.key`, none where there is no file; a ValueError if it is damaged."""
    file = Path(root) / LOCK
    try:
        lock = json.loads(file.read_text())
        if all(isinstance(entry["sha256"], str) and isinstance(entry["files"], dict) for entry in lock.values()):
            return lock
        reason = "an entry without files"
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        reason = error
    raise ValueError(f"{file}: not a lock file ({reason}); restore it, or delete it to download without comparing")


def record(root: Path, key: str, entry: dict[str, Any]) -> None:
    """Add an entry to the lock file, which other threads and processes write as well."""
    with (root / ".downloads" / "lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        draft = root / f".{uuid.uuid4().hex}.json"
        draft.write_text(json.dumps(read_lock(root) | {key: entry}, indent=1))
        os.replace(draft, root / LOCK)


def verify(root: Path, only: Sequence[str] = ()) -> list[str]:
    """One line for each recorded file that is missing or is not as it was; none if all are sound.

    `only` are beginnings of paths under root, by default all of them. A ValueError says that the lock file is damaged.
    """
    files = {path: facts for entry in read_lock(root).values() for path, facts in entry["files"].items()}
    chosen = {path: facts for path, facts in files.items() if path.startswith(tuple(only) or "")}
    wrong = []
    for path, (size, sha256) in tqdm(chosen.items(), desc="checking", unit="file", leave=False, disable=None):
        file = Path(root) / path
        if not file.is_file():
            wrong.append(f"{path}: missing")
        elif file.stat().st_size != size:
            wrong.append(f"{path}: has {file.stat().st_size} bytes, had {size}")
        elif (now := file_sum(file)) != sha256:
            wrong.append(f"{path}: has SHA-256 {now}, had {sha256}")
    return wrong
