"""Seeds: what is accepted trains, counts and has names that files may have; the rest is refused at the start."""

import dataclasses
import itertools

import pytest

from offmarl.experiments.commands.options import MOST_SEEDS, parse_seeds
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid.suite import LARGEST_SEED
from offmarl.experiments.launch.exclusive import lock_path, train_alone
from offmarl.experiments.store.leftovers import checkpoints, clear_leftovers
from offmarl.experiments.store.store import Cell, Store
from offmarl.experiments.training.machine import Host
from offmarl.reports.records.schema import is_valid_record

MANY = tuple(LARGEST_SEED - 7 * k for k in range(40))  # their list has 439 characters
AFFIXES = len("..old.12345678.lock")  # what others put before and after a name


@pytest.mark.parametrize("text", [str(10**15), str(2**32), "0-4294967296", "9" * 5000, "1,99999999999"])
def test_a_seed_that_is_too_large_is_refused_in_a_short_line(text):
    with pytest.raises(UserError) as error:
        parse_seeds(text)
    assert "--seeds" in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize("text", ["0-4294967295", "5-10005", "0-5000,6000-12000"])
def test_more_seeds_than_can_train_are_refused_before_they_are_listed(text):
    with pytest.raises(UserError, match=f"more than {MOST_SEEDS:,} seeds"):
        parse_seeds(text)


def test_the_largest_seed_and_leading_zeros_are_taken():
    assert parse_seeds(f"{LARGEST_SEED},007,00-01,0") == [LARGEST_SEED, 7, 0, 1]
    assert len(parse_seeds(f"0-{MOST_SEEDS - 1}")) == MOST_SEEDS


def test_the_record_of_an_accepted_seed_is_valid():
    cell = Cell("smac/3m", "good", "embedded", "bc", "quick", "quick", LARGEST_SEED)
    assert is_valid_record({"cell": dataclasses.asdict(cell), "status": "done", "run_id": "x"})


def test_names_are_bounded_whatever_the_list_and_the_variant(small):
    job = small()
    lists = [(0, 1), tuple(range(100)), tuple(range(1, 101)), MANY, MANY[::-1]]
    variants = ["paper", "+".join(["paper", "without_igm"] * 40), "+".join(["paper", "without_igm"] * 41)]
    jobs = [dataclasses.replace(job, seeds=s, variant=v) for s, v in itertools.product(lists, variants)]
    assert max(len(one.key) for one in jobs) + AFFIXES <= 255
    assert len({one.key for one in jobs}) == len(jobs)
    assert len({one.lock_name for one in jobs}) == len(variants)
    assert job.key == f"smac-3m.good.embedded.bc.paper.smoke.s0.{job.hash}+0,1"  # as older checkpoints are called


def test_a_long_list_of_seeds_trains_is_stopped_continues_and_leaves_nothing(small, tmp_path):
    job = dataclasses.replace(small(steps=12), seeds=MANY)
    job = dataclasses.replace(job, protocol=dataclasses.replace(job.protocol, eval_episodes=1, eval_every=12))
    training = train_alone(job, tmp_path, Host())
    assert next(step for step in training if step == 7)
    training.close()
    clear_leftovers(tmp_path)  # what a run begins with
    found = {path.suffix: (name, seeds) for path, name, seeds in checkpoints(tmp_path)}
    assert found == {".pt": (job.lock_name, MANY), ".seeds": (job.lock_name, MANY)}
    told = list(train_alone(job, tmp_path, Host()))
    assert told[1:] == list(range(8, 13))
    assert {Store(tmp_path).status(run_id) for run_id in job.run_ids()} == {"done"}
    assert list((tmp_path / "work").iterdir()) == [] and not lock_path(tmp_path, job).exists()


def test_the_checkpoint_of_a_long_list_goes_when_its_runs_are_done_and_stays_without_its_list(small, tmp_path):
    job = dataclasses.replace(small(), seeds=MANY)
    (tmp_path / "work").mkdir()
    checkpoint = tmp_path / "work" / f"{job.key}.pt"
    checkpoint.touch()
    for cell, run_id in zip(job.cells(), job.run_ids()):
        Store(tmp_path).write(cell, {"run_id": run_id, "status": "done"})
    for content in (None, "", "1,,2", "a"):
        if content is not None:
            checkpoint.with_suffix(".seeds").write_text(content)
        clear_leftovers(tmp_path)
        assert checkpoint.exists()
    checkpoint.with_suffix(".seeds").write_text(",".join(map(str, MANY)))
    clear_leftovers(tmp_path)
    assert list((tmp_path / "work").iterdir()) == []
