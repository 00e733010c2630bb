"""Import: what comes in is checked as public data are, settled or refused, and stored beside the task's other datasets.

Imported data are in the data folder, as `own/<family>/<task>/<name>.npz` in the canonical form, with a .json of where
they come from and what was settled.
"""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from offmarl.benchmarks.own import WORD
from offmarl.benchmarks.tasks import Task
from offmarl.datasets.cache import replacing
from offmarl.datasets.dataset import Dataset, file_sum, join, read, read_folder
from offmarl.datasets.imported.episodes import Episode, recording_of
from offmarl.datasets.imported.files import NAMES, files_of, is_canonical, open_files
from offmarl.datasets.imported.fitted import fitted
from offmarl.datasets.own import catalogue, imported_file, settled
from offmarl.datasets.public.convert import convert
from offmarl.datasets.public.layouts import Recording, files_read
from offmarl.datasets.public.sources import Ends

ANONYMOUS = "behaviour: the files do not say which policy recorded an episode, so all count as one policy's"
KEPT = ("ends", "boundaries", "rows_without_an_end", "broken_off", "left_out")  # of a conversion's card


def import_files(
    name: str,
    task: Task,
    paths: Sequence[Path],
    keys: Mapping[str, str] = {},
    ends: Ends = "detect",
    trust_flags: bool = False,
    replace_it: bool = False,
) -> dict[str, Any]:
    """Store files or folders of one layout as the task's dataset `name`; returns what is told of it.

    `keys` has the files' names of columns (`NAMES`), `ends` is how flagged rows are read (README of datasets). With
    `trust_flags` nobody looks whether states jump where no end is flagged.
    Raises ValueError naming file, key and row of what cannot be settled; nothing is stored then.
    """
    _refuse_name(name, task, replace_it)
    if strange := [key for key in keys if key not in NAMES]:
        raise ValueError(f"--keys {strange[0]}=…: is none of {', '.join(NAMES)}")
    files = files_of(paths)
    sums = {str(file): file_sum(file) for path in files for file in files_read(path)}
    if canonical := [file for file in files if is_canonical(file)]:
        if canonical != files or keys:
            raise ValueError(f"{canonical[0]}: is of the canonical form: import such files alone, and without --keys")
        return _store(name, task, join([(read(file, task), 1.0) for file in files]), {}, [], sums)
    recordings = [one for file in files for one in open_files(file, task, keys)]
    if trust_flags:
        recordings = [replace(one, whole=True) for one in recordings]
    with converted(recordings, task, ends, imported_file(task, name).parent) as (data, facts, notes):
        return _store(name, task, data, facts, [*notes, ANONYMOUS], sums)


def import_episodes(name: str, task: Task, episodes: Iterable[Episode], replace_it: bool = False) -> dict[str, Any]:
    """Store episodes, as `recording_of` describes them, as the task's dataset `name`; returns what is told of it.

    Raises ValueError naming the episode at fault, or the row of all episodes' rows together; nothing is stored then.
    """
    _refuse_name(name, task, replace_it)
    with converted_episodes(episodes, task, imported_file(task, name).parent) as (data, facts, notes):
        return _store(name, task, data, facts, notes, {})


@contextmanager
def converted_episodes(
    episodes: Iterable[Episode], task: Task, folder: Path, where: str = "episodes"
) -> Iterator[tuple[Dataset, dict[str, Any], list[str]]]:
    """As `converted`, of episodes, which also say who recorded them (`behaviour`)."""
    authors: list[int] = []

    def noted() -> Iterator[Episode]:
        for episode in episodes:
            authors.append(int(episode.get("behaviour", 0)))
            yield episode

    recording = recording_of(noted(), task, where)
    with converted([recording], task, "detect", folder) as (data, facts, notes):
        yield replace(data, behaviour=np.array(authors, np.int16)), facts, notes


def _refuse_name(name: str, task: Task, replace_it: bool) -> None:
    """Raises ValueError for a name that no dataset can have, or one that is taken."""
    if not re.fullmatch(WORD, name):
        raise ValueError(f"'{name}' cannot name a dataset: write letters, digits, - and _, a small letter first")
    taken = catalogue().get((task.name, name))
    if taken and taken.file != imported_file(task, name):
        raise ValueError(f"{task.name}:{name}: is there already, as {taken.file}; choose another name")
    if taken and not replace_it:
        raise ValueError(f"{task.name}:{name}: was imported already; choose another name, or --replace")


@contextmanager
def converted(
    recordings: Sequence[Recording], task: Task, ends: Ends, folder: Path
) -> Iterator[tuple[Dataset, dict[str, Any], list[str]]]:
    """A dataset by the conversion of public data, what its card says of ends, and what was settled; gone afterwards.

    It is stricter with the user's own: no episode is left out. `folder` is where it lies meanwhile.
    Raises ValueError naming file, key and row of what cannot be settled.
    """
    layouts = {"last" if "next_obs" in one.columns and one.ends == "detect" else one.ends for one in recordings}
    if len(layouts) > 1:
        raise ValueError(f"{recordings[-1].where}: is laid out unlike {recordings[0].where}; import them one by one")
    ends = cast(Ends, *layouts) if ends == "detect" else ends
    prepared, notes = [], []
    for one in recordings:
        if ends != "limit" and not {"ends", "timeouts"} & one.columns.keys():
            advice = "write --keys ends=…, or --ends limit where all are as long as the task's limit"
            raise ValueError(f"{one.where}: has no flags of episode ends; {advice}")
        found, told = fitted(one, task)
        prepared.append((found, 1.0))
        notes += told
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as draft:
        card = convert(prepared, task, ends, Path(draft) / "arrays", {})
        if card["left_out"]:
            raise ValueError(f"{card['left_out'][0]} ({len(card['left_out'])} such episodes)")
        if 2 * card["broken_off"] > card["episodes"]:
            few = f"only {card['episodes'] - card['broken_off']} ends are flagged, but the state jumps more often"
            raise ValueError(f"{recordings[0].where}: {few}; give truncations too, or --trust-flags")
        notes += [f"ends are read as '{card['ends']}': {card['boundaries']['reason']}"] * (ends == "detect")
        told_of = {
            "episodes had no flagged end, and are cut where the state jumps": card["broken_off"],
            "rows after the last end are left out": card["rows_without_an_end"],
            _clocked(task): card["ends_at_the_limit_taken_as_time_outs"],
        }
        notes += [f"{count:,} {what}" for what, count in told_of.items() if count]
        yield read_folder(Path(draft) / "arrays"), {key: card[key] for key in KEPT}, notes


def _store(
    name: str, task: Task, data: Dataset, facts: dict[str, Any], notes: list[str], sums: Mapping[str, str]
) -> dict[str, Any]:
    """Settle what the task's rules decide, write the arrays and what is told of them; returns the latter."""
    data.check(task)
    data, clocked = settled(data, task)
    notes += [f"{clocked:,} {_clocked(task)}"] if clocked else []
    if blind := int((~data.successors).sum()):
        notes.append(f"{blind:,} time-outs lack a next observation: the last one is repeated and not learnt from")
    place = imported_file(task, name)
    with replacing(place) as draft:
        data.save(draft)
        told = {"sha256": file_sum(draft), "files": dict(sums), "settled": list(dict.fromkeys(notes)), **facts}
        with replacing(place.with_suffix(".json")) as card:
            card.write_text(json.dumps(told, indent=1))
    return {**data.statistics(), **told}


def _clocked(task: Task) -> str:
    return f"ends at the limit of {task.limit} steps are the clock's: time-outs"
