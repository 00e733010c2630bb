"""The command `offmarl rerun`: train a stored run once more, and say whether the same comes of it."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from offmarl.experiments.commands.options import command, find_device
from offmarl.experiments.errors import UserError, check_name, refusing

if TYPE_CHECKING:
    import numpy as np

    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.machine import Host

RTOL, ATOL = 1e-3, 1e-4  # seeds that train together are summed in another order than alone


def add_command(commands) -> None:
    """Declare it."""
    again = command(commands, "rerun", "train a stored run once more: are returns and weights the same?", _rerun)
    again.add_argument("run_id", metavar="RUN_ID", help="the name of its folder in <results>/runs")
    again.add_argument("--alone", action="store_true", help="without the seeds that it trained with in lock step")
    again.add_argument("--device", help="cpu, cuda or auto (default: what it was trained on)")
    again.add_argument("--results", type=Path, default=Path("results"), help="results directory (default: results)")


def _rerun(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from offmarl.experiments.grid.jobs import stored_job
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.run import train

    store = Store(args.results)
    record = _record(store, args.run_id)
    with refusing(f"{args.run_id}: its run.json is not that of a run"):
        seed = record["cell"]["seed"]
        job = stored_job(record, [seed] if args.alone else record.get("seeds") or [seed])
        if args.run_id not in job.run_ids():
            raise UserError(f"{args.run_id}: the settings in its run.json are those of {job.run_ids()[0]}")
        if job.entry.key() != job.protocol["data"]:
            raise UserError(f"{args.run_id}: was trained on another version of its data, which cannot be made here")
        host = _host(record["machine"], args.device)
    cannot = refusing(f"{args.run_id}: cannot be trained again")
    with cannot, tempfile.TemporaryDirectory(prefix="offmarl-rerun-") as scratch:
        host.set_up()
        with tqdm(total=job.protocol["steps"], desc=job.title, unit="update", disable=None) as bar:
            for progress in train(job, scratch, host):
                bar.update(progress.step - bar.n)
        rows = compare(store, Store(scratch), args.run_id)
    print(f"{args.run_id}, with seeds {', '.join(map(str, job.seeds))} on {host.facts()['device']}")
    for row in rows:
        print(f"{row.what}: {row.verdict}")
    return 0 if all(row.same for row in rows) else 1


def _record(store: "Store", run_id: str) -> dict[str, Any]:
    """The record of a run that has a result."""
    check_name("run", run_id, store.run_ids())
    record = store.peek(run_id, None)
    if record is None:
        raise UserError(f"{run_id}: is damaged; `offmarl run` trains it again")
    if record["status"] == "failed":
        raise UserError(f"{run_id}: failed ({record.get('reason')}), so there is nothing to compare")
    return record


def _host(machine: dict[str, Any], device: str | None) -> "Host":
    """The device and its settings as a record has them."""
    from offmarl.experiments.training.machine import Host

    place = find_device(device or ("cuda" if "cuda" in machine else "cpu"))
    eager = not machine.get("captured", True)
    return Host(place, machine["threads"], machine.get("tf32", False), eager, machine.get("deterministic", False))


class Row(NamedTuple):
    """One thing compared; `exact` where every bit is the same."""

    what: str
    same: bool
    verdict: str
    exact: bool = False


def outcome(store: "Store", run_id: str) -> dict[str, dict[str, "np.ndarray"]]:
    """All that must not depend on when and how often a run was interrupted: returns, curves and weights."""
    import numpy as np
    import pandas as pd
    import torch

    folder, record = store.runs / run_id, store.peek(run_id) or {"evaluations": []}
    weights = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    return {
        "returns": {f"step {look['step']}": np.asarray(look["returns"]) for look in record["evaluations"]},
        "curves": {str(name): column.to_numpy() for name, column in pd.read_parquet(folder / "curves.parquet").items()},
        "weights": {name: np.asarray(value) for name, value in weights.items()},
    }


def compare(store: "Store", again: "Store", run_id: str) -> list[Row]:
    """Returns, curves and weights of two trainings of one run: bit for bit, within tolerance, or not the same."""
    before, after = outcome(store, run_id), outcome(again, run_id)
    return [_judge(what, before[what], after[what]) for what in before]


def _judge(what: str, before: dict[str, Any], after: dict[str, Any]) -> Row:
    """How close two sets of arrays are."""
    import numpy as np

    shapes = [{name: value.shape for name, value in one.items()} for one in (before, after)]
    if shapes[0] != shapes[1]:
        return Row(what, False, "not the same: other steps, names or shapes")
    pairs = [(value, after[name]) for name, value in before.items()]
    if all(np.array_equal(a, b, equal_nan=True) for a, b in pairs):
        return Row(what, True, "the same bit for bit", exact=True)
    furthest = max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in pairs)
    if all(np.allclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True) for a, b in pairs):
        return Row(what, True, f"the same to tolerance (relative {RTOL}, absolute {ATOL}; furthest {furthest:.2g} off)")
    return Row(what, False, f"not the same (furthest {furthest:.2g} off)")
