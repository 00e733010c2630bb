"""The command `offmarl status`: what was asked of a store, how far it is, and the time left."""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from offmarl.experiments.commands.options import declare, examples, existing
from offmarl.experiments.grid import estimate
from offmarl.reports.records.schema import FINISHED, Record, strayed

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Job, Request
    from offmarl.experiments.store.store import Store

STATES = ("done", "failed", "diverged", "running", "pending")


def status_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(("status", "for a person"), ("status --json", "for a program"))
    declare(parser, "--results", "--task")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_status)


def _status(args: argparse.Namespace) -> int:
    from offmarl.experiments.store.store import Store

    found = survey(Store(existing(args.results)))
    print(json.dumps(found, indent=1) if args.json else _text(found))
    return 0


def note_grid(results: Path, request: "Request", grid: Sequence["Job"]) -> None:
    """Keep what was asked for, in place of an earlier request like it, so that `status` can count what is pending."""
    from offmarl.reports.records.files import write_text

    path = results / "grids" / f"{request.suite}-{request.profile}-{request.source}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    jobs = [
        {name: getattr(job, name) for name in ("title", "task", "quality", "algorithm")}
        | {"steps": job.protocol.steps, "run_ids": job.run_ids(), "lease": job.lock_name}
        for job in grid
    ]
    write_text(path, json.dumps({"asked": datetime.now(UTC).isoformat(), "jobs": jobs}, indent=1))


def survey(store: "Store") -> Record:
    """All that the command shows.

    `grids`: cells by state for each grid that was asked for; `methods`: cells by method and state, of all grids and of
    other stored runs; `running`: the jobs; `lost`: runs that failed or diverged; `stale`: runs of other code;
    `left_out`: what lies in the store and is no run or grid of it; `time_left_s`: of methods with a finished run;
    `untimed`: pending methods without; `hours`: of GPUs and of CPU threads.
    """
    from offmarl.experiments.grid.code import why_stale
    from offmarl.experiments.store.reading import readable

    (records, left_out), running = readable(store), _running(store)
    states = {i: "done" if record["status"] in FINISHED else record["status"] for i, record in records.items()}
    methods = {run_id: record["cell"]["algorithm"] for run_id, record in records.items()}
    grids, unfinished = {}, {}
    for path in sorted((store.root / "grids").glob("[!.]*.json")):
        try:
            jobs = [
                {key: job[key] for key in ("run_ids", "lease", "algorithm", "task", "steps")}
                for job in _read_jobs(path)
            ]
        except (OSError, ValueError, KeyError, TypeError):
            left_out.append(f"{path}: is not a list of jobs")
            continue
        for job in jobs:
            if open_ids := [run_id for run_id in job["run_ids"] if run_id not in records]:
                unfinished[job["lease"]] = job
            states |= dict.fromkeys(open_ids, "running" if job["lease"] in running else "pending")
            methods |= dict.fromkeys(job["run_ids"], job["algorithm"])
        grids[path.stem] = _count(states[run_id] for job in jobs for run_id in job["run_ids"])
    by_method = {
        name: _count(states[i] for i in states if methods[i] == name) for name in dict.fromkeys(methods.values())
    }
    seconds, untimed = time_left(unfinished.values(), running, records.values())
    failed = [(run_id, record) for run_id, record in records.items() if record["status"] not in FINISHED]
    return {
        "grids": grids,
        "methods": by_method,
        "running": list(running.values()),
        "lost": [{"run_id": i, "status": r["status"], "reason": r.get("reason")} for i, r in failed],
        "strayed": [
            {"run_id": i, **record["value"]}
            for i, record in records.items()
            if record["status"] == "done" and strayed(record.get("value"))
        ],
        "stale": [{"run_id": i, "reason": why} for i, record in records.items() if (why := why_stale(record))],
        "left_out": left_out,
        "time_left_s": seconds,
        "untimed": untimed,
        "hours": hours(records.values()),
    }


def _read_jobs(path: Path) -> list[Record]:
    """The jobs of a grid that was asked for. ValueError, KeyError or TypeError where a file is none."""
    jobs = json.loads(path.read_bytes())["jobs"]
    if not all(isinstance(job["steps"], int) and all(isinstance(i, str) for i in job["run_ids"]) for job in jobs):
        raise TypeError
    return jobs


def _count(states: Iterable[str]) -> dict[str, int]:
    count = Counter(states)
    return {state: count[state] for state in STATES}


def _running(store: "Store") -> dict[str, Record]:
    """What is being trained, by job."""
    from offmarl.experiments.store.lock import running

    return {
        job: {"job": job, **{key: facts[key] for key in ("host", "pid", "step", "steps")}}
        | {"heartbeat_s": round(max(0.0, facts["age"]), 1)}
        for job, facts in running(store.root).items()
    }


def time_left(
    unfinished: Iterable[Record], running: Mapping[str, Record], records: Iterable[Record]
) -> tuple[float, list[str]]:
    """Seconds for the unfinished jobs, from the mean time per update of the finished runs, and methods without any.

    As many jobs run side by side as now.
    """
    paces: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        times, steps = record.get("time"), (record.get("protocol") or {}).get("steps")
        if record["status"] in FINISHED and times and steps:
            spent = sum(times.get(part) or 0.0 for part in ("data_s", "update_s", "evaluate_s"))
            paces[record["cell"]["algorithm"], record["cell"]["task"]].append(spent / steps)
    steps = [
        (job["algorithm"], job["task"], job["steps"] - running.get(job["lease"], {}).get("step", 0))
        for job in unfinished
    ]
    seconds, untimed = estimate.time_left(steps, {kind: mean(found) for kind, found in paces.items()})
    return seconds / max(1, len(running)), untimed


def hours(records: Iterable[Record]) -> dict[str, float]:
    """Hours that the stored runs took, of GPUs and of CPU threads; seeds that trained together share theirs."""
    spent = {"gpu": 0.0, "cpu": 0.0}
    for record in records:
        times, machine = record.get("time") or {}, record.get("machine") or {}
        seconds = sum(value or 0.0 for part, value in times.items() if part.endswith("_s"))
        seconds /= times.get("seeds_together") or 1
        if "cuda" in machine:
            spent["gpu"] += seconds / 3600
        else:
            spent["cpu"] += seconds / 3600 * (machine.get("threads") or 1)
    return spent


def _text(found: Record) -> str:
    """The survey for a person."""
    if not found["methods"]:
        return "\n".join(["no runs yet", *(f"left out: {line}" for line in found["left_out"])])
    lines = [f"{'method':14}" + "".join(f"{state:>9}" for state in STATES)]
    for name, count in found["methods"].items():
        lines.append(f"{name:14}" + "".join(f"{count[state] or '':>9}" for state in STATES))
    for name, count in found["grids"].items():
        lines.append(f"{name}: {count['done']} of {sum(count.values())} cells done, {count['pending']} pending")
    for row in found["running"]:
        step = f"step {row['step']:,} of {row['steps']:,}" if row["steps"] else "loading"
        beat = f"heartbeat {row['heartbeat_s']:.0f} s ago"
        lines.append(f"running: {row['job']}: {step}, {beat} ({row['host']} pid {row['pid']})")
    lines += [f"{row['status']}: {row['run_id']}: {row['reason']}" for row in found["lost"]]
    told = "critic far off: {run_id}: mean value {value:.3g} on the data, whose discounted return is {data_value:.3g}"
    lines += [told.format(**row) for row in found["strayed"]]
    if stale := len(found["stale"]):
        lines.append(f"stale: {stale} runs were trained with other code; `offmarl run --again` retrains them")
    lines += [f"left out: {line}" for line in found["left_out"]]
    if found["grids"]:
        lines.append(f"time left: {estimate.left_in_words(found['time_left_s'], len(found['untimed']))}")
    spent = found["hours"]
    lines.append(f"spent: {spent['gpu']:.2f} GPU-hours, {spent['cpu']:.2f} CPU-hours (finished runs)")
    return "\n".join(lines)
