"""The results store as data frames.

Reads `<results>/runs/<run id>/run.json` and nothing else. A file that cannot be read, or does not match its sum, is
left out and counted; so are the runs that were set aside in `<results>/damaged` and have not been run again.
Runs of one cell with different settings are never pooled: the newest set is kept. `attrs["notes"]` of a frame
says what was left out. The store holds raw returns; those of the tasks in `normalised` are turned into scores here,
0 for the return of a random policy and 100 for an expert's, by the two returns that each run carries.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offmarl.reports.records import checksums as sums
from offmarl.reports.records.schema import CELL, evaluated, formed

Record = dict[str, Any]


def load_runs(
    results: Path | str, profile: str | None = None, source: str | None = None, normalised: Collection[str] = ()
) -> pd.DataFrame:
    """One row per run: cell, status, returns, latency, provenance.

    `final` is the mean return over the episodes of the last evaluation (`episodes`), `best` the highest mean
    of any evaluation, `latency_ms` milliseconds per joint decision, `train_s` seconds spent in updates, `reduced`
    the sizes that fall short of the paper's, in words (empty for a network of the paper's size, or an older record).
    """
    found, notes = records(Path(results), profile, source, normalised)
    columns = _row({"cell": dict.fromkeys(CELL), "status": "failed", "run_id": ""})
    runs = pd.DataFrame([_row(record) for record in found], columns=pd.Index(columns))
    runs.attrs["notes"] = notes
    return runs


def evaluation_curves(
    results: Path | str, profile: str | None = None, source: str | None = None, normalised: Collection[str] = ()
) -> pd.DataFrame:
    """One row per evaluation of a finished run: cell, `step`, `mean_return`, `episodes` (their returns)."""
    found, notes = records(Path(results), profile, source, normalised)
    rows = [
        {
            **record["cell"],
            "step": evaluation["step"],
            "mean_return": float(np.mean(evaluation["returns"])),
            "episodes": evaluation["returns"],
        }
        for record in found
        if record["status"] == "done"
        for evaluation in record.get("evaluations") or []
    ]
    curves = pd.DataFrame(rows, columns=pd.Index([*CELL, "step", "mean_return", "episodes"]))
    curves.attrs["notes"] = notes
    return curves


def records(
    results: Path, profile: str | None = None, source: str | None = None, normalised: Collection[str] = ()
) -> tuple[list[Record], list[str]]:
    """The run.json of a profile and source (None: any), one set of settings per cell, and what was left out."""
    found, damaged = [], []
    for path in sorted((results / "runs").glob("[!.]*/run.json")):  # a leading dot: a run being written
        record = _read(path)
        if record is None:
            damaged.append(path.parent.name)
        elif profile in (None, record["cell"]["profile"]) and source in (None, record["cell"]["source"]):
            found.append(record)
    kept, notes = _newest(found)
    aside = {path.name.rpartition(".")[0] for path in (results / "damaged").glob("*")}
    damaged += sorted(run_id for run_id in aside if not (results / "runs" / run_id).exists())
    if damaged:
        shown = ", ".join(damaged[:3]) + (", …" if len(damaged) > 3 else "")
        notes.append(f"{len(damaged)} run.json could not be read and count as not run: {shown}.")
    return [scored(record) if record["cell"]["task"] in normalised else record for record in kept], notes


def scored(record: Record) -> Record:
    """The record with normalised scores for returns; without the two returns that it takes, a failed one."""
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


def _read(path: Path) -> Record | None:
    """A usable record, or None: it needs a cell, a known status, and episodes where it claims to be done.

    One that has a sum must match it.
    """
    try:
        if sums.summed(path.parent) and sums.faults(path.parent, [sums.RECORD]):
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if formed(record) and (record["status"] != "done" or evaluated(record)) else None


def _newest(records: list[Record]) -> tuple[list[Record], list[str]]:
    """Of each cell's sets of settings the one that finished last; finished runs go before failed ones."""
    cells: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        cells[tuple(record["cell"][key] for key in CELL[:-1])][_settings(record)].append(record)
    kept, left_out = [], defaultdict(list)
    for (task, quality, _, algorithm, variant, _), sets in cells.items():
        newest = max(sets, key=lambda settings: max(map(_age, sets[settings])))
        kept += sets.pop(newest)
        if sets:
            left_out[algorithm, variant].append(f"{task} {quality} ({', '.join(sets)})")
    notes = [
        f"{algorithm} ({variant}): older runs with other settings are left out on {'; '.join(places)}."
        for (algorithm, variant), places in left_out.items()
    ]
    return kept, notes


def _settings(record: Record) -> str:
    return record.get("config_hash") or record["run_id"].rsplit(".", 1)[-1]


def _age(record: Record) -> tuple[bool, str]:
    return record["status"] == "done", record.get("finished") or ""


def _row(record: Record) -> Record:
    """A run as one flat row; a failed run may lack everything but its cell."""
    evaluations = record.get("evaluations") or []
    means = [float(np.mean(evaluation["returns"])) for evaluation in evaluations]
    won = evaluations[-1].get("won") if evaluations else None

    def fact(part: str, key: str, missing: Any = np.nan) -> Any:
        return (record.get(part) or {}).get(key, missing)

    return {
        **record["cell"],
        "run_id": record["run_id"],
        "status": record["status"],
        "reason": record.get("reason"),
        "config_hash": _settings(record),
        "title": fact("algorithm", "title", None),
        "reduced": _sizes(fact("algorithm", "reduced", None) or {}),
        "final": means[-1] if means else np.nan,
        "best": max(means, default=np.nan),
        "episodes": evaluations[-1]["returns"] if evaluations else [],
        "win_rate": float(np.mean(won)) if won else np.nan,
        "steps": fact("protocol", "steps"),
        "eval_episodes": fact("protocol", "eval_episodes"),
        "eval_noise": fact("protocol", "eval_noise", None),
        "latency_ms": fact("latency", "joint_ms"),
        "train_s": fact("time", "update_s"),
        "dataset_mean": fact("dataset", "return_mean"),
        "dataset_std": fact("dataset", "return_std"),
        "dataset_sha256": fact("dataset", "sha256", None),
        "device": fact("machine", "device", None),
        "engine": _engine(record.get("engine") or {}),
        "unlocked": fact("engine", "unlocked", None),
        "rollout": fact("engine", "rollout", None),
        "score": record.get("score"),
    }


def _sizes(reduced: dict[str, Any]) -> str:
    """'hidden 128x128, flow_steps 5', from the sizes stored with the run."""
    words = {name: "x".join(map(str, value)) if isinstance(value, list) else value for name, value in reduced.items()}
    return ", ".join(f"{name} {size}" for name, size in words.items())


def _engine(engine: dict[str, str]) -> str | None:
    """'SMAX (jaxmarl 0.2.0, jax 0.10.2)', from the facts stored with the run."""
    facts = {name: value for name, value in engine.items() if name not in ("engine", "unlocked", "rollout")}
    versions = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"{engine['engine']} ({versions})" if versions and "engine" in engine else engine.get("engine")
