"""The command `offmarl status`: what was asked of a store, what has come of it, and what it takes yet."""

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import examples, existing, results_option

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Job, Request
    from offmarl.experiments.store.store import Store

Record = dict[str, Any]
STATES = ("done", "failed", "diverged", "running", "pending")


def status_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(("status", "for a person"), ("status --json", "for a program"))
    results_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_status)


def _status(args: argparse.Namespace) -> int:
    from offmarl.experiments.store.store import Store

    found = survey(Store(existing(args.results)))
    print(json.dumps(found, indent=1) if args.json else _text(found))
    return 0


def note_grid(results: Path, request: "Request", grid: Sequence["Job"]) -> None:
    """Keep what is asked for, so that what is pending can be counted without asking again.

    Asked anew of the same suite, profile and source, it replaces what was asked before.
    """
    from offmarl.reports.records.files import write_text

    place = results / "grids" / f"{request.suite}-{request.profile}-{request.source}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            **{"title": job.title, "task": job.task, "quality": job.quality, "algorithm": job.algorithm},
            **{"steps": job.protocol["steps"], "run_ids": job.run_ids(), "lease": job.lease},
        }
        for job in grid
    ]
    write_text(place, json.dumps({"asked": datetime.now(UTC).isoformat(), "jobs": rows}, indent=1))


def survey(store: "Store") -> Record:
    """All that the command shows.

    `grids`: cells by state for each grid that was asked for; `methods`: cells by method and state, of all grids and of
    what the store has beside them; `running`; `lost`: runs that failed or diverged; `time_left_s`, None where no run
    has told the speed; `hours`, of devices and of CPU threads.
    """
    records = {run_id: record for run_id in store.run_ids() if (record := store.peek(run_id))}
    running = _running(store)
    states = {run_id: record["status"] for run_id, record in records.items()}
    methods = {run_id: record["cell"]["algorithm"] for run_id, record in records.items()}
    grids, left = {}, {}
    for place in sorted((store.root / "grids").glob("[!.]*.json")):
        jobs = json.loads(place.read_text())["jobs"]
        for job in jobs:
            open_ids = [run_id for run_id in job["run_ids"] if states.get(run_id) in (None, "running")]
            if open_ids:
                left[job["lease"]] = job
            states |= dict.fromkeys(open_ids, "running" if job["lease"] in running else "pending")
            methods |= dict.fromkeys(job["run_ids"], job["algorithm"])
        grids[place.stem] = _counted(states[run_id] for job in jobs for run_id in job["run_ids"])
    by_method = {
        name: _counted(states[i] for i in states if methods[i] == name) for name in dict.fromkeys(methods.values())
    }
    lost = [
        {"run_id": run_id, "status": record["status"], "reason": record.get("reason")}
        for run_id, record in records.items()
        if record["status"] != "done"
    ]
    return {
        "grids": grids,
        "methods": by_method,
        "running": list(running.values()),
        "lost": lost,
        "time_left_s": time_left(list(left.values()), running, list(records.values())),
        "hours": hours(records.values()),
    }


def _counted(states: Iterable[str]) -> dict[str, int]:
    count = Counter(states)
    return {state: count[state] for state in STATES}


def _running(store: "Store") -> dict[str, Record]:
    """What is being trained, by the name of its lease."""
    from offmarl.experiments.store.lock import alive, read_lease

    found = {}
    for path in sorted((store.root / "work").glob("[!.]*.lease")):
        try:
            lease = read_lease(path)
        except OSError:  # it has ended just now
            continue
        if alive(lease):
            facts = {key: lease[key] for key in ("host", "pid", "step", "steps")}
            found[path.stem] = {"job": path.stem, **facts, "heartbeat_s": round(max(0.0, lease["age"]), 1)}
    return found


def time_left(left: Sequence[Record], running: Mapping[str, Record], records: Sequence[Record]) -> float | None:
    """Seconds for what is left, by the mean time of a method's runs, at as many side by side as run now.

    A method without runs counts as the others on average.
    """
    paces: dict[str, list[float]] = {}
    for record in records:
        times, steps = record.get("time"), (record.get("protocol") or {}).get("steps")
        if record["status"] == "done" and times and steps:
            spent = sum(times.get(part) or 0.0 for part in ("data_s", "update_s", "evaluate_s"))
            paces.setdefault(record["cell"]["algorithm"], []).append(spent / steps)
    if not left:
        return 0.0
    if not paces:
        return None
    mean = {name: statistics.mean(own) for name, own in paces.items()}
    usual, total = statistics.mean(mean.values()), 0.0
    for job in left:
        steps = job["steps"] - running.get(job["lease"], {}).get("step", 0)
        total += steps * mean.get(job["algorithm"], usual)
    return total / max(1, len(running))


def hours(records: Iterable[Record]) -> dict[str, float]:
    """Hours that the stored runs took, of GPUs and of CPU threads; seeds that trained together share theirs."""
    spent = {"gpu": 0.0, "cpu": 0.0}
    for record in records:
        times, machine = record.get("time") or {}, record.get("machine") or {}
        seconds = sum(value or 0.0 for part, value in times.items() if part.endswith("_s"))
        seconds /= times.get("seeds_together") or 1
        cuda = "cuda" in machine
        spent["gpu" if cuda else "cpu"] += seconds / 3600 * (1 if cuda else machine.get("threads") or 1)
    return spent


def _text(found: Record) -> str:
    """The survey for a person."""
    if not found["methods"]:
        return "no runs yet"
    lines = [f"{'method':14}" + "".join(f"{state:>9}" for state in STATES)]
    for name, count in found["methods"].items():
        lines.append(f"{name:14}" + "".join(f"{count[state] or '':>9}" for state in STATES))
    for name, count in found["grids"].items():
        lines.append(f"{name}: {count['done']} of {sum(count.values())} cells done, {count['pending']} pending")
    for row in found["running"]:
        where = f"step {row['step']:,} of {row['steps']:,}" if row["steps"] else "loading"
        beat = f"heartbeat {row['heartbeat_s']:.0f} s ago"
        lines.append(f"running: {row['job']}: {where}, {beat} ({row['host']} pid {row['pid']})")
    lines += [f"{row['status']}: {row['run_id']}: {row['reason']}" for row in found["lost"]]
    seconds, spent = found["time_left_s"], found["hours"]
    if found["grids"]:
        lines.append(f"time left: {'unknown, no run has ended yet' if seconds is None else _span(seconds)}")
    lines.append(f"spent: {spent['gpu']:.2f} GPU-hours, {spent['cpu']:.2f} CPU-hours (runs that have ended)")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"about {minutes // 60} h {minutes % 60} min" if seconds >= 60 else "none" if not seconds else "a minute"
