"""`offmarl data` as a user types it, and suites on public data."""

import json
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import matplotlib.image
import numpy as np
import pytest

from offmarl.benchmarks.tasks import tasks
from offmarl.datasets import dataset as canonical
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.embedded import recipes as embedded
from offmarl.datasets.public import releases as public
from offmarl.experiments.cli import main


def hopper(entry, forge, lengths=(30, 12, 45), seed=0):
    """Write a dataset of OMIGA's hopper."""
    story = forge.episodes(entry.task, lengths, seed)
    for one in story:
        one["rewards"][:] = one["rewards"][:, :1]
    forge.write_hdf5(entry.paths()[1], forge.rows(story, delimited=True))


def test_the_list_has_every_dataset_of_every_source_with_the_published_returns(public_data, capsys):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    for source in ("embedded", "og_marl", "omiga", "omar"):
        found = embedded.catalogue() if source == "embedded" else public.catalogue(source)
        for (task, quality), entry in found.items():
            (line,) = [line for line in shown if line.split()[:2] == [f"{task}:{quality}", source]]
            assert ("{:.2f} ± {:.2f}".format(*entry.target) if entry.target else "a mix") in line
            assert ("not here" in line) == (source != "embedded")
        assert source == "embedded" or any(line.startswith(f"{source}: ") and "Apache" in line for line in shown)


def test_every_dataset_of_the_papers_has_one_public_source():
    from offmarl.experiments.grid.suite import load_suite, suite_names

    wanted = {
        (task, quality)
        for name in suite_names()
        for tasks in load_suite(name).groups.values()
        for task, qualities in tasks.items()
        for quality in qualities
    }
    offered = [key for source in public.sources() for key in public.catalogue(source)]
    assert len(wanted) == 47  # 18 + 16 + 16, three of which two tables share
    assert sorted(offered) == sorted(wanted)


def test_the_card_is_a_page_with_a_histogram(public_data, forge, tmp_path, capsys):
    hopper(public_data("omiga", "mamujoco/3hopper", "expert"), forge)
    assert main(["data", "card", "mamujoco/3hopper:expert", "--source", "omiga", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "mamujoco-3hopper-expert-omiga.md").read_text()
    assert page in capsys.readouterr().out
    assert "| transitions | 87 |" in page and "2452.0 ± 1097.9" in page and "delimiter" in page
    picture = matplotlib.image.imread(tmp_path / "mamujoco-3hopper-expert-omiga.png")
    assert picture[..., :3].std() > 0.1


def test_check_doubts_returns_that_are_not_the_published_ones_and_copies(public_data, forge, capsys):
    for quality, seed in (("expert", 0), ("medium", 0), ("medium-replay", 1)):
        hopper(public_data("omiga", "mamujoco/3hopper", quality), forge, seed=seed)
    assert main(["data", "check", "--source", "omiga"]) == 1
    capsys.readouterr()
    assert main(["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]) == 1
    shown = capsys.readouterr().out.splitlines()
    doubts = [line for line in shown if line.startswith("  !")]
    assert any("published 2452.00" in line for line in doubts)
    assert any("3 of 3 episodes are in medium too" in line for line in doubts)
    assert any("0 of 3 episodes are in medium-replay too" in line for line in shown if line not in doubts)
    assert any("ends are read as 'delimiter'" in line for line in shown)


def test_check_names_the_fault_of_a_broken_file_and_goes_on(public_data, forge, capsys):
    hopper(broken := public_data("omiga", "mamujoco/3hopper", "expert"), forge)
    hopper(public_data("omiga", "mamujoco/3hopper", "medium"), forge, seed=1)
    broken.found().write_bytes(broken.found().read_bytes()[:-200])
    assert main(["data", "check", "--source", "omiga"]) == 1
    shown = capsys.readouterr().out
    assert "is not a complete HDF5 file" in shown and "mamujoco/3hopper:medium (omiga)" in shown


def test_nothing_to_check_is_said(public_data, capsys):
    assert main(["data", "check", "--source", "omiga"]) == 3
    assert "nothing to check" in capsys.readouterr().err


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A folder that a hub on this machine serves, at one commit."""

    class Hub(SimpleHTTPRequestHandler):
        def translate_path(self, path):
            return super().translate_path("/" + path.split("/resolve/")[-1].partition("/")[2])

        def end_headers(self):
            self.send_header("X-Repo-Commit", "c0ffee" + "0" * 34)
            self.send_header("ETag", '"1"')
            super().end_headers()

        def log_message(self, *words):
            pass

    served = tmp_path / "served"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield served
    server.shutdown()
    server.server_close()


def test_get_downloads_unpacks_and_remembers_what_came(host, public_data, forge, tmp_path, capsys):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    forge.write_vault(entry.paths()[0], [forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True)])
    root = entry.paths()[0].parent.parent
    (host / "prior_work/omiga/mamujoco").mkdir(parents=True)
    with zipfile.ZipFile(host / "prior_work/omiga/mamujoco/3hopper.zip", "w") as archive:
        for file in entry.paths()[0].rglob("*"):
            archive.write(file, file.relative_to(root))
    shutil.rmtree(root)
    get = ["data", "get", "--source", "omiga", "--tasks", "mamujoco/3hopper"]
    assert main(get) == 0
    assert len(entry.load()[0]) == 14
    (recorded,) = json.loads((public.data_dir() / "offmarl-lock.json").read_text()).values()
    assert (recorded["revision"], recorded["commit"]) == ("main", "c0ffee" + "0" * 34)
    assert "1 files (0.60 GB)" in capsys.readouterr().err
    assert main([*get[:-1], "mamujoco/3hopper:expert"]) == 0
    assert "nothing to download" in capsys.readouterr().out
    changed = entry.found() / "metadata.json"
    changed.write_text(changed.read_text() + " ")
    assert main(["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]) == 1
    assert f"! omiga/mamujoco/3hopper.vlt/Expert/metadata.json: has {changed.stat().st_size} bytes, had" in (
        capsys.readouterr().out
    )


def test_get_asks_for_what_is_not_here_only(public_data, forge, tmp_path, monkeypatch, capsys):
    """Mixes need no file of their own, and data without the prey need the prey alone."""
    from offmarl.datasets.public import download

    asked = []
    monkeypatch.setattr(download, "fetch", lambda wanted, root, jobs: asked.extend(d.into for d in wanted) or [])
    get = ["data", "get", "--source", "omar", "--tasks", "mpe/tag"]
    assert main(get) == 0
    assert asked == ["omar/mpe", "omar/prey/simple_tag.pt"]
    for quality in ("expert", "medium", "medium-replay"):
        entry = public_data("omar", "mpe/tag", quality)
        rows = forge.rows(forge.episodes(entry.task, [25, 25]))
        forge.write_vault(entry.paths()[0], [rows])
    asked.clear()
    assert main(get) == 0
    assert asked == ["omar/prey/simple_tag.pt"]
    monkeypatch.setenv("OFFMARL_PREY", str(tmp_path))
    asked.clear()
    assert main(get) == 0
    assert asked == [] and "nothing to download" in capsys.readouterr().out


def torn_metadata(vault):
    (vault / "metadata.json").unlink()


def torn_manifest(vault):
    (vault / "manifest.ocdbt").unlink()


def torn_chunk(vault):
    max((vault / "d").iterdir(), key=lambda file: file.stat().st_size).unlink()


def torn_file(vault):
    file = max((vault / "d").iterdir(), key=lambda file: file.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def torn_everything(vault):
    shutil.rmtree(vault)
    vault.mkdir()


@pytest.fixture
def published(host, public_data, forge):
    """OMIGA's hopper at the hub; its entry here, downloaded."""
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    root = entry.paths()[0].parent.parent
    for quality in ("expert", "medium", "medium-replay", "medium-expert"):
        place = public_data("omiga", "mamujoco/3hopper", quality).paths()[0]
        forge.write_vault(place, [forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True)])
    (host / "prior_work/omiga/mamujoco").mkdir(parents=True)
    with zipfile.ZipFile(host / "prior_work/omiga/mamujoco/3hopper.zip", "w") as archive:
        for file in (file for file in root.rglob("*") if file.is_file()):
            archive.write(file, file.relative_to(root))
    shutil.rmtree(root)
    assert main(GET) == 0
    return entry


GET = ["data", "get", "--source", "omiga", "--tasks", "mamujoco/3hopper"]


@pytest.mark.parametrize("tear", [torn_metadata, torn_manifest, torn_chunk, torn_file, torn_everything])
@pytest.mark.parametrize("recorded", [True, False], ids=["by us", "by hand"])
def test_torn_data_do_not_count_and_get_mends_them(published, tear, recorded, capsys):
    if not recorded:
        (public.data_dir() / "offmarl-lock.json").unlink()
    tear(published.found())
    capsys.readouterr()
    assert main(["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]) == 1
    assert " ".join(["offmarl", *GET]) in capsys.readouterr().out
    assert main(GET) == 0
    assert len(published.load()[0]) == 14
    capsys.readouterr()
    assert main(GET) == 0
    assert "nothing to download" in capsys.readouterr().out


def test_a_fault_deep_inside_names_the_command_that_mends_it_and_it_does(public_data, published, forge, capsys):
    damaged = public_data("omiga", "mamujoco/3hopper", "medium")
    rows = forge.rows(forge.episodes(damaged.task, [9, 5]), delimited=True)
    rows["obs"][3] = np.nan
    shutil.rmtree(damaged.found())
    forge.write_vault(damaged.paths()[0], [rows])
    (public.data_dir() / "offmarl-lock.json").unlink()
    with pytest.raises(ValueError, match=r"observations, row 3: not a finite number; `offmarl data get .* --again`"):
        damaged.load()
    assert main([*GET, "--again"]) == 0
    assert len(damaged.load()[0]) == 14


def test_a_download_that_cannot_be_read_is_a_failure(published, host, capsys):
    """Whole and as published, and still no data."""
    place = host / "prior_work/omiga/mamujoco/3hopper.zip"
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("3hopper.vlt/Expert/metadata.json", "{}")
    shutil.rmtree(public.data_dir())
    capsys.readouterr()
    assert main(GET) == 1
    assert "mamujoco/3hopper:expert: " in (said := capsys.readouterr().err) and "is not a complete vault" in said


def test_a_torn_prey_is_downloaded_again_and_ones_own_is_not(public_data, forge, monkeypatch):
    from offmarl.datasets.public import download

    asked = []
    monkeypatch.setattr(download, "fetch", lambda wanted, root, jobs: asked.extend(d.into for d in wanted) or [])
    for quality in ("expert", "medium", "medium-replay"):
        entry = public_data("omar", "mpe/tag", quality)
        forge.write_vault(entry.paths()[0], [forge.rows(forge.episodes(entry.task, [25, 25]))])
    prey = public.data_dir() / "omar/prey/simple_tag.pt"
    prey.parent.mkdir()
    prey.write_bytes(b"PK half of a file")
    main(["data", "get", "--source", "omar", "--tasks", "mpe/tag"])
    assert asked == ["omar/prey/simple_tag.pt"]
    asked.clear()
    monkeypatch.setenv("OFFMARL_PREY", str(prey))
    main(["data", "get", "--source", "omar", "--tasks", "mpe/tag"])
    assert asked == []


def test_a_mirror_is_asked_instead_of_the_hub(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    (download,) = public.catalogue("og_marl")["smac/3m", "good"].downloads
    path = "/datasets/InstaDeepAI/og-marl/resolve/main/core/smac_v1/3m.zip"
    assert download.address() == f"https://mirror.example{path}"
    monkeypatch.delenv("HF_ENDPOINT")
    assert download.address() == f"https://huggingface.co{path}"


def test_what_cannot_be_downloaded_is_said_with_the_way_by_hand(host, public_data, capsys):
    assert main(["data", "get", "--source", "omiga", "--tasks", "mamujoco/2ant"]) == 1
    said = capsys.readouterr().err
    assert "mamujoco/2ant.zip" in said and str(public.data_dir()) in said


def test_a_policy_of_ones_own_is_recorded(tmp_path, capsys):
    file = tmp_path / "random.npz"
    record = ["data", "record", "--tasks", "mpe/spread", "--policy", "random", "--episodes", "70", "--out", str(file)]
    assert main(record) == 0
    assert "episodes 70" in capsys.readouterr().out
    assert main(["data", "check", str(file), "--task", "mpe/spread"]) == 0


SUITE = ["run", "--suite", "continuous", "--source", "omiga", "--profile", "smoke", "--algorithms", "bc", "--jobs", "1"]
TINY = ["--seeds", "0", "--set", "all.hidden=[16]", "--set", "all.batch_size=8"]


RUBBISH = [
    ("checkpoint.pt", lambda b: b[:-1]),
    ("run.json", lambda b: b + b" "),
    ("checkpoint.pt", lambda b: b[: len(b) // 2]),
    ("checkpoint.pt", lambda b: b""),
    ("run.json", lambda b: b'{"cell": 7}'),
    ("run.json", lambda b: b.replace(b'"config": {', b'"config": {"hidden": "x", "strange": 1, ')),
]


def test_a_suite_runs_on_the_public_data_that_are_there_and_says_what_is_not(public_data, forge, tmp_path, capsys):
    hopper(public_data("omiga", "mamujoco/3hopper", "expert"), forge)
    results = ["--results", str(tmp_path / "results")]
    assert main([*SUITE, *TINY, *results]) == 0
    said = capsys.readouterr()
    assert "not available: mamujoco/3hopper (medium, medium-replay, medium-expert): no data at" in said.err
    assert "offmarl data get --source omiga --tasks mamujoco/3hopper" in said.err
    assert "not available: mpe/spread" in said.err and "--source embedded or omar" in said.err
    (record,) = [json.loads(file.read_text()) for file in tmp_path.glob("results/runs/*/run.json")]
    assert record["cell"]["source"] == "omiga"
    assert record["engine"]["physics"] == "legacy"
    assert record["dataset"]["files"] and record["dataset"]["ends"] == "delimiter"
    table = (tmp_path / "results/reports/continuous-omiga/table.csv").read_text()
    assert "not available" in table
    played = f"{tmp_path}/results/runs/{record['run_id']}"
    out = str(tmp_path / "played.npz")
    again = ["data", "record", "--tasks", "mamujoco/3hopper", "--policy", played, "--episodes", "2", "--out", out]
    assert main(again) == 0
    assert main([*again[:3], "mpe/spread", *again[4:]]) == 2
    assert "was trained on mamujoco/3hopper" in capsys.readouterr().err
    folder = tmp_path / "results" / "runs" / record["run_id"]
    for n, (file, content) in enumerate(RUBBISH):  # the first two with sums that tell, the others without
        before = (folder / file).read_bytes()
        (folder / file).write_bytes(content(before))
        if n == 2:
            (folder / "SHA256SUMS").unlink()
        assert main(again) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--policy {folder}: is not the folder of a finished run" in line
        (folder / file).write_bytes(before)
    assert main(again) == 0


def test_nothing_at_all_to_run_on_is_an_exit_code_of_its_own(public_data, tmp_path, capsys):
    assert main([*SUITE, "--results", str(tmp_path / "results")]) == 3
    said = capsys.readouterr().err
    assert "nothing to run" in said and "offmarl data get --source omiga" in said
    assert main(["run", "--suite", "smac", "--source", "og_marl", "--results", str(tmp_path / "results")]) == 3
    assert "oxwhirl/smac.git" in capsys.readouterr().err


def test_damaged_public_data_fail_their_cells_with_the_reason_and_no_others(public_data, forge, tmp_path, capsys):
    hopper(broken := public_data("omiga", "mamujoco/3hopper", "expert"), forge)
    hopper(public_data("omiga", "mamujoco/3hopper", "medium"), forge, seed=1)
    broken.found().write_bytes(broken.found().read_bytes()[:-200])
    assert main([*SUITE, *TINY, "--results", str(tmp_path / "results")]) == 1
    records = [json.loads(file.read_text()) for file in tmp_path.glob("results/runs/*/run.json")]
    by_quality = {record["cell"]["quality"]: record for record in records}
    assert by_quality["medium"]["status"] == "done"
    assert "is not a complete HDF5 file" in by_quality["expert"]["reason"]
    assert "Traceback" not in capsys.readouterr().err


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


def test_a_full_disk_is_said_in_one_line_and_fails_the_cells(public_data, forge, tmp_path, monkeypatch, capsys):
    from offmarl.datasets.public import convert

    hopper(public_data("omiga", "mamujoco/3hopper", "expert"), forge)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "_write", full)
    assert main(["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]) == 1
    said = capsys.readouterr()
    assert "No space left on device" in said.out and "Traceback" not in said.err
    assert list((tmp_path / "cache" / "data").iterdir()) == []


def test_a_dry_run_on_damaged_data_still_plans(public_data, forge, tmp_path, capsys):
    hopper(broken := public_data("omiga", "mamujoco/3hopper", "expert"), forge)
    broken.found().write_bytes(broken.found().read_bytes()[:-200])
    plan = [*SUITE, *TINY, "--dry-run", "--results", str(tmp_path / "results")]
    assert main(plan) == 0
    said = capsys.readouterr()
    assert "1 cells: 0 done, 1 pending" in said.out and "not available: mamujoco/3hopper" in said.err
