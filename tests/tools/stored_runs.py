"""Write tests/experiments/grid/stored_runs.json anew, after settings were changed on purpose.

    python tests/tools/stored_runs.py

Every run id that moves is a run that users train again: say so in the CHANGELOG.
"""

import dataclasses
import json
from pathlib import Path

from offmarl.experiments.grid.jobs import REPEATED, Job, OnlinePhase, Request, jobs

FILE = Path(__file__).parents[1] / "experiments" / "grid" / "stored_runs.json"


def renewed(record: dict, grid: list[Job]) -> dict:
    """A stored record with today's settings of its cell."""
    cell = record["cell"]
    parts = cell["variant"].split("+")
    variant = "+".join(part for part in parts if "=" not in part)
    named = {**cell, "variant": variant}
    job = next(job for job in grid if all(getattr(job, key) == named[key] for key in named if key != "seed"))
    if variant != cell["variant"]:
        old = record["protocol"]
        phase = OnlinePhase(old["online"]["from"], *(old["online"][key] for key in ("lanes", "share", "noise")))
        steps = {key: old[key] for key in ("eval_every", "eval_episodes", "steps")}
        job = dataclasses.replace(
            job,
            variant=cell["variant"],
            config=dataclasses.replace(job.config, decay_steps=0),
            protocol=dataclasses.replace(job.protocol, **steps, online=phase),
        )
    settings = job.settings
    protocol = settings["protocol"] | {key: settings["config"][key] for key in REPEATED if key in settings["config"]}
    run_id = dataclasses.replace(job, seeds=(cell["seed"],)).run_ids()[0]
    return {
        "run_id": run_id,
        "cell": cell,
        "config": settings["config"],
        "config_hash": job.hash,
        "protocol": protocol,
    }


def main() -> None:
    """Renew the records and the run ids of the suites, and say how many moved."""
    stored = json.loads(FILE.read_text())
    grids = {suite: jobs(Request(suite, "smoke")) for suite in stored["grids"]}
    every = [job for grid in grids.values() for job in grid]
    runs = [renewed(record, every) for record in stored["runs"]]
    ids = {suite: [job.run_ids()[0] for job in grid] for suite, grid in grids.items()}
    moved = sum(old != new for suite in ids for old, new in zip(stored["grids"][suite], ids[suite]))
    lines = ",\n".join("  " + json.dumps(record) for record in runs)
    FILE.write_text(f'{{\n "runs": [\n{lines}\n ],\n "grids": {json.dumps(ids, indent=1)}\n}}\n')
    print(f"{FILE.name}: {moved} of {sum(map(len, ids.values()))} run ids of the suites moved")


if __name__ == "__main__":
    main()
