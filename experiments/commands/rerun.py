"""The command `offmarl rerun`: train a stored run, or a cell of the reference results, again and compare."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from offmarl.experiments.commands.options import METHOD_FILE, declare, examples, find_device
from offmarl.experiments.errors import UserError, check_name, refusing

if TYPE_CHECKING:
    from offmarl.experiments.grid.jobs import Job
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.machine import Host


def rerun_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(
        ("rerun RUN_ID", "with the seeds that it trained with"),
        ("rerun RUN_ID --alone --device cpu", "one seed, on the CPU"),
        ("rerun smac/3m:good:mac_flow --reference", "a cell of the results that ship with offmarl, all its seeds"),
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="the name of its folder in <results>/runs")
    text = "rerun a cell of the results that ship with offmarl (RUN_ID: task:quality:method); compare its mean return"
    parser.add_argument("--reference", action="store_true", help=text)
    parser.add_argument("--alone", action="store_true", help="train this seed alone, not with the seeds of its group")
    parser.add_argument("--device", help="cpu, cuda or auto (default: what it was trained on)")
    declare(parser, *METHOD_FILE, "--task", "--results")
    parser.set_defaults(command=_rerun)


def _rerun(args: argparse.Namespace) -> int:
    from offmarl.experiments.store.archive import shipped, unpacked
    from offmarl.experiments.store.store import Store

    if not args.reference:
        return _rerun_run(Store(args.results), args)
    if args.alone:
        raise UserError("--reference and --alone: a cell of the reference is trained with all its seeds")
    with unpacked(*shipped()) as reference:
        return _rerun_cell(Store(reference), args)


def _rerun_run(store: "Store", args: argparse.Namespace) -> int:
    """One run: the same bits, or the same to tolerance?"""
    from offmarl.experiments.grid.code import why_stale
    from offmarl.experiments.store.compare import compare

    run_id = args.run_id
    record = store.peek(check_name("run", run_id, store.run_ids()), all_files=True)
    if record is None:
        raise UserError(f"{run_id}: is damaged; `offmarl run` trains it again")
    if record["status"] == "failed":
        raise UserError(f"{run_id}: failed ({record.get('reason')}), so there is nothing to compare")
    with refusing(f"{run_id}: its run.json is malformed"):
        job, host = _job(record, run_id, args.alone), _host(record["machine"], args.device)
    with _trained(job, host, run_id) as again:
        rows = compare(store, again, run_id, by_chance=bool(job.entry.task.simulator.presence))
    if reason := why_stale(record):
        print(f"stale: {reason}, so a difference is to be expected")
    print(f"{run_id}, with seeds {', '.join(map(str, job.seeds))} on {host.facts()['device']}")
    for row in rows:
        print(f"{row.what}: {row.verdict}")
    return 0 if all(row.same for row in rows) else 1


def _rerun_cell(reference: "Store", args: argparse.Namespace) -> int:
    """A cell of the reference: does the mean return of its seeds lie in the reference's interval?"""
    from offmarl.experiments.grid.code import why_stale
    from offmarl.experiments.store.reading import readable
    from offmarl.reports.records.schema import OWN, by_play
    from offmarl.reports.tables.stats import estimate

    def mean(records: list[dict[str, Any]]) -> dict[str, Any]:
        return estimate([{one["cell"]["seed"]: by_play(one)[OWN][-1]["returns"] for one in records}])

    cells: dict[str, list[dict[str, Any]]] = {}
    for record in readable(reference)[0].values():
        cells.setdefault(":".join(record["cell"][key] for key in ("task", "quality", "algorithm")), []).append(record)
    records = cells[check_name("cell of the reference", args.run_id, cells)]
    if any(record["status"] != "done" for record in records):
        raise UserError(f"{args.run_id}: lost a seed in the reference, so there is no interval to compare with")
    first = records[0]
    job = _job(first, first["run_id"], alone=False)
    host = _host(first["machine"], args.device)
    with _trained(job, host, args.run_id) as again:
        made = list(readable(again)[0].values())
    if lost := [f"seed {r['cell']['seed']} {r['status']} ({r.get('reason')})" for r in made if r["status"] != "done"]:
        print(f"{args.run_id}: {'; '.join(lost)}; in the reference all seeds came to their end: does not agree")
        return 1
    here = mean(made)
    theirs = mean(records)
    agrees = theirs["ci_low"] <= here["mean"] <= theirs["ci_high"]
    if reason := why_stale(first):
        print(f"stale: {reason}, so a difference is to be expected")
    interval = f"{theirs['mean']:.2f} [{theirs['ci_low']:.2f}, {theirs['ci_high']:.2f}]"
    verdict = "agrees" if agrees else "does not agree"
    print(f"{args.run_id}: {here['mean']:.2f} here, {interval} in the reference ({theirs['n_seeds']} seeds): {verdict}")
    return 0 if agrees else 1


@contextmanager
def _trained(job: "Job", host: "Host", name: str) -> Iterator["Store"]:
    """A store in which a job has been trained, for as long as the block lasts."""
    from tqdm import tqdm

    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.run import train

    with tempfile.TemporaryDirectory(prefix="offmarl-rerun-") as scratch:
        with refusing(f"{name}: cannot be trained again"):
            host.set_up()
            with tqdm(total=job.protocol.steps, desc=job.title, unit="update", disable=None) as bar:
                for step in train(job, scratch, host):
                    bar.update(step - bar.n)
        yield Store(scratch)


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
