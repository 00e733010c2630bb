"""`offmarl data` as a user types it: lists, cards, checks, recordings, and files of one's own."""

import json
import os

import matplotlib.image
import numpy as np
import pytest
from miniature_data import hopper

from offmarl.benchmarks.tasks import tasks
from offmarl.datasets import dataset as canonical
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.embedded import recipes as embedded
from offmarl.datasets.public import releases as public
from offmarl.experiments.cli import main
from offmarl.experiments.store.archive import unpacked


def test_the_list_has_every_dataset_of_every_source_with_the_published_returns(public_data, capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for source in ("embedded", "og_marl", "omiga", "omar"):
        found = embedded.catalogue() if source == "embedded" else public.catalogue(source)
        for (task, quality), entry in found.items():
            (line,) = [line for line in shown if line.split()[:2] == [f"{task}:{quality}", source]]
            assert ("{:.2f} ± {:.2f}".format(*entry.target) if entry.target else "a mix" if entry.mix else "") in line
            assert ("not here" in line) == (source != "embedded")
        assert source == "embedded" or any(line.startswith(f"{source}: ") and "Apache" in line for line in shown)


@pytest.mark.parametrize("size", [0, 100, None], ids=["empty", "cut off", "gone"])
def test_the_list_marks_converted_data_that_are_not_whole_with_the_command_that_mends_them(public_data, size, capsys):
    hopper(entry := public_data("omiga", "mamujoco/3hopper", "expert"))
    entry.load()
    file = entry.place() / "obs.npy"
    file.unlink() if size is None else os.truncate(file, size)
    command = ["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]
    mended = "`offmarl data check mamujoco/3hopper:expert --source omiga` makes it again"
    for damaged in (True, False):
        capsys.readouterr()
        assert main(["data", "list", "--source", "omiga"]) == 0
        assert (mended in capsys.readouterr().out) == damaged
        main(command)


def test_every_dataset_of_the_papers_has_one_public_source():
    from offmarl.experiments.grid.suite import load_suite, suite_names

    wanted = {
        (task, quality)
        for name in suite_names()
        if load_suite(name).published
        for tasks in load_suite(name).groups.values()
        for task, qualities in tasks.items()
        for quality in qualities
    }
    offered = [key for source in public.sources() for key in public.catalogue(source)]
    assert len(wanted) == 47  # 18 + 16 + 16, three of which two tables share
    assert sorted(offered) == sorted(wanted)


def test_the_card_is_a_page_with_a_histogram(public_data, tmp_path, capsys):
    hopper(public_data("omiga", "mamujoco/3hopper", "expert"))
    assert main(["data", "card", "mamujoco/3hopper:expert", "--source", "omiga", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "mamujoco-3hopper-expert-omiga.md").read_text()
    assert page in capsys.readouterr().out
    assert "| transitions | 87 |" in page and "2452.0 ± 1097.9" in page and "delimiter" in page
    assert "| joint coverage (SACo) | 1.0000 |" in page and "too few episodes" in page
    picture = matplotlib.image.imread(tmp_path / "mamujoco-3hopper-expert-omiga.png")
    assert picture[..., :3].std() > 0.1


def test_cards_go_into_one_file_which_keeps_those_that_are_in_it(public_data, tmp_path, capsys):
    out, words = tmp_path / "new" / "cards.tar.xz", ["--source", "omiga", "--out"]
    for seed, quality in enumerate(("expert", "medium")):
        hopper(public_data("omiga", "mamujoco/3hopper", quality), seed=seed)
        assert main(["data", "card", f"mamujoco/3hopper:{quality}", *words, str(out)]) == 0
        assert f"written: {out}: mamujoco-3hopper-{quality}-omiga" in capsys.readouterr().out
    with unpacked(out) as results:
        cards = [json.loads(path.read_text()) for path in sorted((results / "cards").iterdir())]
    assert [card["dataset"] for card in cards] == ["mamujoco/3hopper:expert", "mamujoco/3hopper:medium"]
    assert cards[1]["measures"]["returns"] and len(cards[1]["key"]) == 8
    whole = out.read_bytes()
    for left in (300, len(whole) - 4):
        out.write_bytes(whole[:left])
        assert main(["data", "card", "mamujoco/3hopper:medium", *words, str(out)]) == 2
        assert "cards.tar.xz: is no archive of runs or cards, or is damaged" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_cards_made_at_once_are_those_made_one_by_one(public_data, tmp_path, capsys):
    entries = [public_data("omiga", "mamujoco/3hopper", quality) for quality in ("expert", "medium", "medium-replay")]
    for seed, entry in enumerate(entries):
        hopper(entry, seed=seed)
    found, names = [], [f"mamujoco/3hopper:{entry.quality}" for entry in entries]
    for jobs in ("1", "2"):
        for entry in entries:
            (entry.place() / "measures.json").unlink(missing_ok=True)
        out = tmp_path / jobs
        assert main(["data", "card", *names, "--source", "omiga", "--jobs", jobs, "--out", str(out)]) == 0
        assert sorted(capsys.readouterr().out.splitlines()) == [
            f"written: {out}/mamujoco-3hopper-{entry.quality}-omiga.md, .png, .json" for entry in entries
        ]
        found.append([json.loads(path.read_text()) for path in sorted(out.glob("*.json"))])
        for card in found[-1]:
            del card["measures"]["cpu_seconds"]
    assert len(found[0]) == 3 and found[0] == found[1]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--jobs", "0"], "--jobs 0: write a number of at least 1"),
        (["--jobs", "2"], "mamujoco/2ant:expert: no data at"),
    ],
)
def test_cards_that_cannot_be_made_are_said_in_a_line(public_data, tmp_path, capsys, more, reason):
    hopper(public_data("omiga", "mamujoco/3hopper", "expert"))
    public_data("omiga", "mamujoco/2ant", "expert")
    names = ["mamujoco/3hopper:expert", "mamujoco/2ant:expert"]
    assert main(["data", "card", *names, "--source", "omiga", "--out", str(tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"offmarl: {reason}") and "Traceback" not in error


def test_two_datasets_are_set_beside_each_other(public_data, capsys):
    for seed, quality in enumerate(("expert", "medium")):
        hopper(public_data("omiga", "mamujoco/3hopper", quality), seed=seed)
    names = [f"mamujoco/3hopper:{quality}" for quality in ("expert", "medium")]
    assert main(["data", "compare", *names, "--source", "omiga"]) == 0
    shown = capsys.readouterr().out
    assert f"|  | {names[0]} | {names[1]} |" in shown
    assert "pairs of expert that medium has: 0.0%" in shown


def test_check_doubts_returns_that_are_not_the_published_ones_and_copies(public_data, capsys):
    for quality, seed in (("expert", 0), ("medium", 0), ("medium-replay", 1)):
        hopper(public_data("omiga", "mamujoco/3hopper", quality), seed=seed)
    assert main(["data", "check", "--source", "omiga"]) == 1
    capsys.readouterr()
    assert main(["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]) == 1
    shown = capsys.readouterr().out.splitlines()
    doubts = [line for line in shown if line.startswith("  !")]
    assert any("published 2452.00" in line for line in doubts)
    assert any("3 of 3 episodes are in medium too" in line for line in doubts)
    assert any("0 of 3 episodes are in medium-replay too" in line for line in shown if line not in doubts)
    assert any("ends are read as 'delimiter'" in line for line in shown)


def test_check_names_the_fault_of_a_broken_file_and_goes_on(public_data, capsys):
    hopper(broken := public_data("omiga", "mamujoco/3hopper", "expert"))
    hopper(public_data("omiga", "mamujoco/3hopper", "medium"), seed=1)
    broken.found().write_bytes(broken.found().read_bytes()[:-200])
    assert main(["data", "check", "--source", "omiga"]) == 1
    shown = capsys.readouterr().out
    assert "is not a complete HDF5 file" in shown and "mamujoco/3hopper:medium (omiga)" in shown


def test_nothing_to_check_is_said(public_data, capsys):
    assert main(["data", "check", "--source", "omiga"]) == 3
    assert "nothing to check" in capsys.readouterr().err


def test_a_policy_of_ones_own_is_recorded(tmp_path, capsys):
    file = tmp_path / "random.npz"
    record = ["data", "record", "--tasks", "mpe/spread", "--policy", "random", "--episodes", "70", "--out", str(file)]
    assert main(record) == 0
    assert "episodes 70" in capsys.readouterr().out
    assert np.load(file)["behaviour"].tolist() == [0] * 70  # one policy, however many were played at once
    assert main(["data", "check", str(file), "--task", "mpe/spread"]) == 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("act = 3", "'int' object is not callable"),
        ("raise SystemExit(5)", "has no function act(view, rng) (SystemExit: 5)"),
        ("x = 1", "has no function act(view, rng)"),
        ("def act(view, rng):\n    return None", "actions: shape (), should be (2, 3, 2)"),
        ("def act(view, rng):\n    raise RuntimeError('oops')", "act(view, rng) fails (RuntimeError: oops)"),
    ],
)
def test_a_script_that_is_no_policy_is_refused_in_a_line(tmp_path, code, reason, capsys):
    script, file = tmp_path / "mine.py", tmp_path / "mine.npz"
    script.write_text(code)
    words = ["data", "record", "--tasks", "mpe/spread", "--episodes", "2", "--policy", str(script)]
    assert main([*words, "--out", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--policy {script}: " in line and reason in line and not file.exists()


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_recorded(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    (tmp_path / "folder.npz").mkdir()
    record = ["data", "record", "--tasks", "mpe/spread", "--policy", "random", "--episodes", "1000000000"]
    for place, reason in {"taken/mine.npz": "cannot be created", "folder.npz": "is a folder; name a file"}.items():
        assert main([*record, "--out", str(tmp_path / place)]) == 2
        assert f"--out {tmp_path}" in (err := capsys.readouterr().err) and reason in err


# What is wrong with a dataset file, what is changed, and what the message must contain.
FAULTS = {
    "not a number": ({"obs": (3, np.nan)}, "obs, row 3: not a finite number"),
    "an infinite reward": ({"rewards": (2, np.inf)}, "rewards, row 2: not a finite number"),
    "too strong an action": ({"actions": (1, 1.5)}, "actions, row 1: outside -1.0 to 1.0"),
}


@pytest.fixture
def spread(tmp_path):
    """A sound file of three episodes of mpe/spread."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "obs": rng.normal(size=(6, 3, 18)).astype(np.float32),
            "state": rng.normal(size=(6, 54)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (5, 3, 2)).astype(np.float32),
            "rewards": np.ones((5, 3), np.float32),
            "done": False,
            "timeout": True,
        }
        for _ in range(3)
    ]
    return tmp_path / "mine.npz", from_episodes(episodes, [0, 0, 0]).arrays()


def check(file, arrays, task="mpe/spread"):
    np.savez(file, **arrays)
    return main(["data", "check", str(file), "--task", task])


def test_a_sound_dataset_file_is_described(spread, capsys):
    file, arrays = spread
    assert check(file, arrays) == 0
    assert "3" in (said := capsys.readouterr().out) and "return_mean 5.0" in said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_dataset_file_is_named_with_its_row(spread, fault, capsys):
    file, arrays = spread
    change, expected = FAULTS[fault]
    for field, (row, value) in change.items():
        arrays[field][row, 0] = value
    refused(check(file, arrays), capsys, file, expected)


@pytest.mark.parametrize("field", ["obs", "state", "actions", "rewards"])
def test_a_field_of_another_shape_is_refused(spread, field, capsys):
    file, arrays = spread
    refused(check(file, arrays | {field: arrays[field][:, :-1]}), capsys, file, f"{field}: rows of shape")
    refused(
        check(file, arrays | {field: arrays[field][:-1]}), capsys, file, "entries for" if field != "obs" else "rows"
    )


TYPES = {
    "done": (lambda v: v.astype(np.float32), "done: float32 with 1 axes, but mpe/spread has bool with 1"),
    "rows": (lambda v: v[:, None], "rows: int64 with 2 axes, but mpe/spread has int64 with 1"),
    "actions": (lambda v: v.astype("U8"), "actions: <U8 with 3 axes, but mpe/spread has float32 with 3"),
    "behaviour": (lambda v: np.int16(0), "behaviour: int16 with 0 axes, but mpe/spread has int16 with 1"),
}


@pytest.mark.parametrize("field", TYPES)
def test_a_field_of_another_type_is_refused(spread, field, capsys):
    file, arrays = spread
    change, expected = TYPES[field]
    refused(check(file, arrays | {field: change(arrays[field])}), capsys, file, expected)


def test_doubles_are_taken_for_floats(spread):
    file, arrays = spread
    assert check(file, arrays | {name: arrays[name].astype(float) for name in ("obs", "rewards")}) == 0
    assert canonical.read(file, tasks()["mpe/spread"]).obs.dtype == np.float32


def test_the_wrong_task_a_missing_field_and_a_torn_file_are_refused(spread, capsys):
    file, arrays = spread
    refused(check(file, arrays, "mamujoco/3hopper"), capsys, file, "obs: rows of shape (3, 18), but mamujoco/3hopper")
    refused(check(file, arrays, "smac/3m"), capsys, file, "smac/3m")
    refused(check(file, {k: v for k, v in arrays.items() if k != "state"}), capsys, file, "missing: ['state']")
    np.savez(file, **arrays)
    file.write_bytes(file.read_bytes()[:-200])
    refused(main(["data", "check", str(file), "--task", "mpe/spread"]), capsys, file, "complete .npz")


def refused(code, capsys, *words):
    said = capsys.readouterr()
    assert (code, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert all(str(word) in said.err for word in words), said.err


def test_a_full_disk_is_said_in_one_line_and_fails_the_cells(public_data, tmp_path, monkeypatch, capsys):
    from offmarl.datasets.public import convert

    hopper(public_data("omiga", "mamujoco/3hopper", "expert"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "_write", full)
    assert main(["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]) == 1
    said = capsys.readouterr()
    assert "No space left on device" in said.out and "Traceback" not in said.err
    assert list((tmp_path / "cache" / "data").iterdir()) == []
