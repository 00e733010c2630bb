"""The records of a results store, read once and then selected from.

Reads `<results>/runs/<run id>/run.json` and nothing else. The store holds raw returns; those of the tasks that a suite
names in `normalised` become scores here: 0 for the return of a random policy and 100 for an expert's, by the two
returns that each run carries.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offmarl.reports.records import checksums
from offmarl.reports.records.schema import (
    CELL,
    OWN,
    Record,
    by_play,
    has_returns,
    is_valid_record,
    with_plays,
)

TIMEOUTS: dict[Any, str] = {True: "bootstrapped", False: "terminal"}  # what follows a time-out, by `timeout_bootstrap`


class Selection(NamedTuple):
    """Records of a store with one set of settings per cell, and notes on what was left out."""

    records: list[Record]
    notes: list[str]


YOURS = "yours/"  # before the name of a run that stands beside the reference's


def never_stale(record: Record) -> None:
    """Of a store whose code is not known."""


@dataclass(frozen=True)
class Records:
    """All records of a store as they were when it was read."""

    root: Path  # the results directory
    by_run: dict[str, Record | None]  # name of the folder to its record; None where it cannot be read
    set_aside: list[str]  # damaged runs that have been moved away and not been run again
    stale: dict[str, str] = field(default_factory=dict)  # runs of other code, with the reason
    misplaced: list[str] = field(default_factory=list)  # folders with a run of another name, such as copies
    why_stale: Callable[[Record], str | None] = never_stale  # as in `read`
    home: Path | None = None  # where replays, experiments and choices are, if not in `root`

    @classmethod
    def read(cls, results: Path | str, why_stale: Callable[[Record], str | None] = never_stale) -> "Records":
        """Read every run.json once; one that cannot be read, is invalid or does not match its checksum is None.

        `why_stale` gives the reason why the code of a run, or of a measurement, is not today's, or None.
        Raises ValueError if there is no such directory.
        """
        root, runs = Path(results), Path(results) / "runs"
        if not root.is_dir():
            raise ValueError(f"no results directory at {root}; `offmarl run` makes it")
        by_run, misplaced = {}, []
        for folder in sorted(path.parent for path in runs.glob(f"[!.]*/{checksums.RECORD}")):  # a dot: being written
            record = None
            with suppress(OSError):
                record = stored_record(folder)
            if record and record["run_id"] != folder.name:
                misplaced.append(folder.name)
            else:
                by_run[folder.name] = record
        moved = {path.name.rpartition(".")[0] for path in (root / "damaged").glob("*")}
        stale = {run_id: why for run_id, record in by_run.items() if record and (why := why_stale(record))}
        gone = sorted(run_id for run_id in moved if not (runs / run_id).exists())
        return cls(root, by_run, gone, stale, misplaced, why_stale)

    def beside(self, reference: "Records", root: Path) -> "Records":
        """The reference's runs, and these as methods of their own, called yours; reports go to `root`.

        A run that is the reference's very own, merged into this store, is shown once.
        """
        own = {
            YOURS + run_id: record and _yours(record)
            for run_id, record in self.by_run.items()
            if record is None or record != reference.by_run.get(run_id)
        }
        stale = reference.stale | {YOURS + run_id: why for run_id, why in self.stale.items()}
        return replace(self, root=root, by_run=reference.by_run | own, stale=stale, home=self.root)

    def name_of(self, run_id: str) -> str:
        """The name here of a run in `home`."""
        return YOURS + run_id if YOURS + run_id in self.by_run else run_id

    def select(
        self, profile: str | None = None, source: str | None = None, normalised: Collection[str] = ()
    ) -> Selection:
        """The records of a profile and a source (None: any), with scores for the returns of `normalised` tasks.

        Runs of one cell with different settings are never pooled: the newest set is kept. A finished run without
        returns counts as damaged.
        """
        found, damaged = [], []
        for run_id, record in self.by_run.items():
            if record is None or (record["status"] == "done" and not has_returns(record)):
                damaged.append(run_id)
            elif profile in (None, record["cell"]["profile"]) and source in (None, record["cell"]["source"]):
                found.append(record)
        kept, notes = newest(found)
        damaged += self.set_aside
        if damaged:
            notes.append(f"{len(damaged)} run.json could not be read and count as not run: {_first(damaged)}.")
        if stale := Counter(record["cell"]["algorithm"] for record in kept if record["run_id"] in self.stale):
            runs = ", ".join(f"{name} {count}" for name, count in stale.items())
            notes.append(
                f"Stale: the code of methods or tasks has changed since these runs: {runs}. "
                "`offmarl run --again` retrains them."
            )
        if self.misplaced:
            shown = f"{len(self.misplaced)} folders hold a run of another name: {_first(self.misplaced)}"
            notes.append(f"{shown}. They are copies, or were renamed, and are left out.")
        return Selection([scored(r) if r["cell"]["task"] in normalised else r for r in kept], notes)


def _yours(record: Record) -> Record:
    """A run under the name of a method of its own."""
    name, facts = record["cell"]["algorithm"], record.get("algorithm") or {}
    return record | {
        "run_id": YOURS + record["run_id"],
        "cell": record["cell"] | {"algorithm": f"{name}-yours"},
        "algorithm": facts | {"title": f"{facts.get('title') or name} (yours)"},
    }


def read_record(folder: Path) -> Record | None:
    """The record of a run; None where it is missing, invalid, of another run, or does not match its checksum."""
    record = stored_record(folder)
    return record if record and record["run_id"] == folder.name else None


def stored_record(folder: Path) -> Record | None:
    """The same, whatever the folder is called."""
    path = folder / checksums.RECORD
    if not path.is_file():
        return None
    content = path.read_bytes()
    if checksums.has_sums(folder) and not checksums.matches(folder, path.name, content):
        return None
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return with_plays(record) if is_valid_record(record) else None


def scored(record: Record) -> Record:
    """The record with normalised scores for returns; without the two returns that this takes, a failed one."""
    if not record.get("score"):
        reason = "the run lacks the returns of a random and an expert policy, so it has no normalised score"
        return record | {"status": "failed", "reason": reason, "evaluations": []}
    low, high = record["score"]
    unit = 100 / (high - low)
    evaluations = [
        evaluation | {"returns": [unit * (value - low) for value in evaluation["returns"]]}
        for evaluation in record.get("evaluations") or []
    ]
    data = dict(record.get("dataset") or {})
    if data:
        data |= {"return_mean": unit * (data["return_mean"] - low), "return_std": unit * data["return_std"]}
    return record | {"evaluations": evaluations, "dataset": data}


def flat(record: Record, play: str = OWN) -> dict[str, Any]:
    """A run in one play as a flat row: cell, status, returns, latency, provenance; None or NaN for what it lacks.

    `final` is the mean return over the episodes of the last evaluation (`episodes`), `best` the highest mean of any
    evaluation, `agreement` that with held-out actions where there is no environment, `transitions` how many all updates
    drew, `latency_ms` milliseconds per joint decision, `train_s` seconds spent in updates, `reduced` the sizes that
    fall short of the paper's, in words (empty for a network of the paper's size, or an older record).
    """
    evaluations = by_play(record).get(play, [])
    means = [float(np.mean(evaluation["returns"])) for evaluation in evaluations]
    won = evaluations[-1].get("won") if evaluations else None
    looks = record.get("held_out") or []
    parts = ("algorithm", "protocol", "latency", "time", "dataset", "machine", "engine")
    algorithm, protocol, latency, time, dataset, machine, engine = (record.get(part) or {} for part in parts)
    return {
        **record["cell"],
        "run_id": record["run_id"],
        "status": record["status"],
        "reason": record.get("reason"),
        "config_hash": _settings(record),
        "title": algorithm.get("title"),
        "reduced": _sizes(algorithm.get("reduced") or {}),
        "evaluations": evaluations,
        "final": means[-1] if means else math.nan,
        "best": max(means, default=math.nan),
        "episodes": evaluations[-1]["returns"] if evaluations else [],
        "win_rate": float(np.mean(won)) if won else math.nan,
        "agreement": next((look["agreement"] for look in looks[::-1] if look["play"] == play), math.nan),
        "steps": _number(protocol, "steps"),
        "transitions": _number(protocol, "steps") * _in_a_batch(record.get("config") or {}),
        "eval_episodes": _number(protocol, "eval_episodes"),
        "play": play,
        "timeouts": TIMEOUTS.get(protocol.get("timeout_bootstrap")),
        "acting": _acting(record, play),
        **{key: _number(record.get("value") or {}, key) for key in ("value", "data_value")},
        "latency_ms": _number(latency, "joint_ms"),
        "train_s": _number(time, "update_s"),
        "dataset_mean": _number(dataset, "return_mean"),
        "dataset_std": _number(dataset, "return_std"),
        "dataset_sha256": dataset.get("sha256"),
        "made_from": dataset.get("made_from") or "",
        "random_mean": _number(dataset, "random_return_mean"),
        "device": machine.get("device"),
        "engine": _engine(engine),
        "unlocked": engine.get("unlocked"),
        "rollout": engine.get("rollout"),
        "score": record.get("score"),
    }


def _in_a_batch(config: dict[str, Any]) -> float:
    """Transitions in a batch: of windows (settings `history` and `horizon`) every row counts, padded ones too, but not
    those that only fill a memory (`burn_in`). NaN where a record does not say."""
    batch, *window = (config.get(key) for key in ("batch_size", "history", "horizon"))
    rows = sum(value for value in window if isinstance(value, int))
    return batch * max(rows, 1) if isinstance(batch, int) else math.nan


def _first(names: list[str]) -> str:
    """The first three."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def newest(records: list[Record]) -> tuple[list[Record], list[str]]:
    """Of each cell's sets of settings the one that ended last, also where it diverged; failed ones come after all."""
    cells: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        cells[tuple(record["cell"][key] for key in CELL[:-1])][_settings(record)].append(record)
    kept, others = [], defaultdict(list)
    for (task, quality, _, algorithm, variant, _), sets in cells.items():
        newest = max(sets, key=lambda settings: max(map(_age, sets[settings])))
        kept += sets.pop(newest)
        if sets:
            others[algorithm, variant].append(f"{task} {quality} ({', '.join(sets)})")
    notes = [
        f"{algorithm} ({variant}): runs with other settings are left out on {'; '.join(places)}."
        for (algorithm, variant), places in others.items()
    ]
    return kept, notes


def _settings(record: Record) -> str:
    return record.get("config_hash") or record["run_id"].rsplit(".", 1)[-1]


def _age(record: Record) -> tuple[bool, str]:
    return record["status"] != "failed", record.get("finished") or ""


def _number(part: dict[str, Any], key: str) -> float:
    value = part.get(key)
    return math.nan if value is None else float(value)


def _acting(record: Record, play: str) -> str:
    """What a play draws: in its own the method's rule; empty where a record does not say, or nothing is drawn."""
    if play != OWN:
        return {"zero": "no noise", "fixed": "one draw of noise"}.get(play, play)
    act_by = (record.get("config") or {}).get("act_by")
    return (record.get("algorithm") or {}).get("acting_rule") or (f"act_by {act_by}" if act_by else "")


def _sizes(reduced: dict[str, Any]) -> str:
    """'hidden 128x128, flow_steps 5', from the sizes stored with the run."""
    words = {name: "x".join(map(str, value)) if isinstance(value, list) else value for name, value in reduced.items()}
    return ", ".join(f"{name} {size}" for name, size in words.items())


def _engine(engine: dict[str, str]) -> str | None:
    """'SMAX (jaxmarl 0.2.0, jax 0.10.2)', from the facts stored with the run."""
    facts = {name: value for name, value in engine.items() if name not in ("engine", "unlocked", "rollout")}
    versions = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"{engine['engine']} ({versions})" if versions and "engine" in engine else engine.get("engine")
