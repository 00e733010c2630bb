"""The command `offmarl rerun`: train a stored run again and compare returns, curves and weights."""

import argparse
import tempfile
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import examples, find_device, results_option
from offmarl.experiments.errors import UserError, check_name, refusing

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Job
    from offmarl.experiments.training.machine import Host


def rerun_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(
        ("rerun RUN_ID", "with the seeds that it trained with"),
        ("rerun RUN_ID --alone --device cpu", "one seed, on the CPU"),
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="the name of its folder in <results>/runs")
    parser.add_argument("--alone", action="store_true", help="without the seeds that it trained with in lock step")
    parser.add_argument("--device", help="cpu, cuda or auto (default: what it was trained on)")
    results_option(parser)
    parser.set_defaults(command=_rerun)


def _rerun(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from offmarl.benchmarks.tasks import ENGINES
    from offmarl.experiments.grid.code import why_stale
    from offmarl.experiments.store.compare import compare
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.run import train

    store, run_id = Store(args.results), args.run_id
    record = store.peek(check_name("run", run_id, store.run_ids()), all_files=True)
    if record is None:
        raise UserError(f"{run_id}: is damaged; `offmarl run` trains it again")
    if record["status"] == "failed":
        raise UserError(f"{run_id}: failed ({record.get('reason')}), so there is nothing to compare")
    with refusing(f"{run_id}: its run.json is malformed"):
        job, host = _job(record, run_id, args.alone), _host(record["machine"], args.device)
    cannot = refusing(f"{run_id}: cannot be trained again")
    with cannot, tempfile.TemporaryDirectory(prefix="offmarl-rerun-") as scratch:
        host.set_up()
        with tqdm(total=job.protocol.steps, desc=job.title, unit="update", disable=None) as bar:
            for step in train(job, scratch, host):
                bar.update(step - bar.n)
        rows = compare(store, Store(scratch), run_id, by_chance=bool(ENGINES[job.entry.task.engine].presence))
    if reason := why_stale(record):
        print(f"stale: {reason}, so a difference is to be expected")
    print(f"{run_id}, with seeds {', '.join(map(str, job.seeds))} on {host.facts()['device']}")
    for row in rows:
        print(f"{row.what}: {row.verdict}")
    return 0 if all(row.same for row in rows) else 1


def _job(record: dict[str, Any], run_id: str, alone: bool) -> "Job":
    """The job that made the run."""
    from offmarl.experiments.grid.jobs import stored_job

    seed = record["cell"]["seed"]
    job = stored_job(record, [seed] if alone else record.get("seeds") or [seed])
    if run_id not in job.run_ids():
        raise UserError(f"{run_id}: the settings in its run.json are those of {job.run_ids()[0]}")
    if job.entry.key() != job.protocol.data:
        raise UserError(f"{run_id}: was trained on another version of its data, which is unavailable here")
    return job


def _host(machine: dict[str, Any], device: str | None) -> "Host":
    """The device of a record, or `device`, with the record's settings."""
    from offmarl.experiments.training import matmul
    from offmarl.experiments.training.machine import Host

    place = find_device(device or ("cuda" if "cuda" in machine else "cpu"))
    eager = not machine.get("captured", True)
    fixed, library = machine.get("deterministic", False), machine.get("matmul", matmul.MKL)
    if not place.startswith("cuda"):
        matmul.check(library)
    return Host(place, machine["threads"], machine.get("tf32", False), eager, fixed, library)
