"""The command `offmarl rerun`: train a stored run once more, and say whether the same comes of it."""

import argparse
import tempfile
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import examples, find_device, results_option
from offmarl.experiments.errors import UserError, check_name, refusing
from offmarl.experiments.store.compare import compare

if TYPE_CHECKING:
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.machine import Host


def rerun_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.epilog = examples(
        ("rerun RUN_ID", "with the seeds that it trained with"),
        ("rerun RUN_ID --alone --device cpu", "alone, on the CPU"),
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="the name of its folder in <results>/runs")
    parser.add_argument("--alone", action="store_true", help="without the seeds that it trained with in lock step")
    parser.add_argument("--device", help="cpu, cuda or auto (default: what it was trained on)")
    results_option(parser)
    parser.set_defaults(command=_rerun)


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
    record = store.peek(run_id, all_files=True)
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
