"""`offmarl data get` as a user types it: downloads, and what mends them."""

import json
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from offmarl.datasets.public import releases as public
from offmarl.experiments.cli import main


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


def listed(capsys):
    """The state of hopper's expert data, as `data list` tells it."""
    capsys.readouterr()
    assert main(["data", "list", "--source", "omiga"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mamujoco/3hopper:expert ")]
    return line[83:]  # after the columns of the returns


@pytest.mark.parametrize("tear", [torn_metadata, torn_manifest, torn_chunk, torn_file, torn_everything])
@pytest.mark.parametrize("recorded", [True, False], ids=["by us", "by hand"])
def test_torn_data_do_not_count_and_get_mends_them(published, tear, recorded, capsys):
    if not recorded:
        (public.data_dir() / "offmarl-lock.json").unlink()
    tear(published.found())
    capsys.readouterr()
    assert main(["data", "check", "mamujoco/3hopper:expert", "--source", "omiga"]) == 1
    assert " ".join(["offmarl", *GET]) in capsys.readouterr().out
    state = listed(capsys)
    assert "not here" in state or state.startswith("damaged: ") and " ".join(["offmarl", *GET]) in state
    assert main(GET) == 0
    assert listed(capsys).startswith("here (")
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
