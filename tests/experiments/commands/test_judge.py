"""`offmarl judge`: one dataset, a page, and no verdict where no selector is known to be right."""

import json
from importlib import resources

import pytest

from offmarl.experiments.cli import main
from offmarl.experiments.studies import selectors
from offmarl.reports.selection.verdict import evidence

pytestmark = pytest.mark.usefixtures("no_leftovers")
EXAMPLE = resources.files("offmarl.benchmarks.own").joinpath("example.py").read_text()
TASK = EXAMPLE.replace("FAMILY/template", "lights/two").replace("TITLE", "Two lights").replace("template-", "")
TOLD = """from offmarl.benchmarks.own import OwnTask


class Told(OwnTask):
    name, title, limit = "lights/told", "Lights", 30
    sizes = dict(agents=2, obs=2, state=4, actions=2)
    datasets = {"random": "random.npz"}
"""
LINE = "judge lights/two:random --task two.py --profile smoke --algorithms bc,macql --jobs 1 --matmul mkl"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a task of one's own and its data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(TASK)
    record = "data record --task two.py --policy random --episodes 20 --out random.npz"
    assert main(record.split()) == 0
    return tmp_path


def trust(folder, family, luck=0.01, datasets=3, name="pool", without=(), **others):
    """What `select --offline` leaves: fitted Q evaluation was right on three datasets, or no better than chance."""
    row = {"family": family, "selector": "fitted_q", "datasets": datasets, "policies": 60, "methods": 4}
    row |= {"rho": [0.8, 0.7, 0.9], "regret": [0.1, 0.05, 0.2], "random_regret": 0.4, "luck": luck}
    facts = {"profile": "smoke", "share": 0.9, "source": "own"} | others
    place = folder / "results" / "measurements" / "trust" / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(facts | {"judged": [row], "without": dict.fromkeys(without, [])}))


def test_evidence_is_that_of_the_most_datasets_at_the_same_profile_share_and_source(tmp_path):
    def known():
        return evidence(tmp_path / "results", "smoke", 0.9, "own", "lights/two:random")

    trust(tmp_path, "mpe")
    for others in ({"luck": 0.5}, {"profile": "quick"}, {"share": 1.0}, {"source": "tuning"}):
        trust(tmp_path, "lights", **others)
        assert "lights" not in known()
    trust(tmp_path, "lights")
    assert known()["lights"].selector == "fitted_q"
    trust(tmp_path, "lights", luck=0.5, datasets=2, name="a part")
    assert "lights" in known()
    trust(tmp_path, "lights", luck=0.5, datasets=5, name="more")
    assert "lights" not in known()


def test_what_was_found_on_a_dataset_says_nothing_of_it(tmp_path):
    trust(tmp_path, "lights", without=["lights/two:random"])
    known = [evidence(tmp_path / "results", "smoke", 0.9, "own", f"lights/{name}:random") for name in ("two", "three")]
    assert [[*own] for own in known] == [[], ["lights"]]


def test_what_older_versions_found_is_not_trusted(tmp_path):
    trust(tmp_path, "lights")
    place = tmp_path / "results/measurements/trust/pool.json"
    record = json.loads(place.read_text())
    del record["judged"][0]["methods"]
    place.write_text(json.dumps(record))
    assert evidence(tmp_path / "results", "smoke", 0.9, "own", "lights/two:random") == {}


def test_a_policy_is_chosen_by_what_is_trusted_in_its_family_and_by_nothing_else(folder, capsys):
    assert main(LINE.split()) == 0
    text = capsys.readouterr().out
    assert "No selector can be trusted on lights at the profile smoke: " in text and "(chosen)" not in text
    page = folder / "results/reports/judge/lights-two-random-own.md"
    assert page.read_text() in text and "What would help" in page.with_suffix(".html").read_text()
    runs = [json.loads(path.read_text()) for path in folder.glob("results/judge/runs/*/run.json")]
    assert len(runs) == 4 and {run["protocol"]["data_share"] for run in runs} == {0.9}
    trust(folder, "lights")
    assert main(LINE.split()) == 0
    text = capsys.readouterr().out
    assert "Chosen by fitted Q evaluation" in text and "rank correlation with played returns was 0.80" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count("|") == 8]
    said = {tuple(cells[:2]): float(cells[4]) for cells in rows if cells[4].lstrip("-")[:1].isdigit()}
    assert max(said.values()) == next(value for name, value in said.items() if "(chosen)" in name[0])
    chosen = next(line for line in text.splitlines() if line.startswith("The policy: "))
    assert (folder / chosen.split("`")[1]).is_file()


def test_several_processes_say_of_policies_what_one_says(folder, monkeypatch):
    assert main(LINE.split()) == 0
    files = list(folder.glob("results/judge/runs/*/run.json"))
    records = {file.parent.name: json.loads(file.read_text()) for file in files}
    folders = {file.parent.name: file.parent for file in files}
    alone = selectors.measure(folders, records, 0.9)
    monkeypatch.setattr(selectors, "TOGETHER", 1)
    several = selectors.measure(folders, records, 0.9, jobs=2)
    said, wanted = several.pop("selectors"), alone.pop("selectors")
    assert several == alone and [list(values) for values in said.values()] == [list(folders)] * len(wanted)
    for selector, values in wanted.items():
        numbers = {name: value for name, value in values.items() if value is not None}
        assert {name: value for name, value in said[selector].items() if value is not None} == pytest.approx(numbers)


def test_what_cannot_be_judged_is_said_in_a_line(tmp_path, capsys):
    for name, answer in (
        ("smac/3m", "smac/3m: must be task:quality"),
        ("smac/33m:good", "unknown task 'smac/33m'"),
        ("smac/3m:goood", "unknown quality of smac/3m 'goood'"),
    ):
        assert main(["judge", name, "--results", str(tmp_path)]) == 2
        assert answer in capsys.readouterr().err
    assert main(["judge", "smac/3m:good", "--algorithms", "matd3bc", "--results", str(tmp_path)]) == 2
    assert "matd3bc: acts in continuous spaces" in capsys.readouterr().err


def test_data_without_an_environment_are_judged_but_for_play(tmp_path, folder, capsys):
    (tmp_path / "told.py").write_text(TOLD)
    line = "judge lights/told:random --task told.py --profile smoke --algorithms bc,bc_rnn --jobs 1 --matmul mkl"
    assert main(line.split()) == 0
    text = capsys.readouterr().out
    assert "A simulator of the task" in text and text.count("never played") == 4
    assert "never played" in (folder / "results/reports/judge/lights-told-random-own.html").read_text()


def test_a_pool_has_no_policy_that_cannot_be_played(tmp_path, folder, capsys):
    (tmp_path / "told.py").write_text(TOLD)
    asked = "--suite lights --task two.py --task told.py --profile smoke --algorithms bc"
    assert main(f"run {asked} --jobs 1 --matmul mkl".split()) == 0
    capsys.readouterr()
    assert main(f"select {asked}".split()) == 0
    text = capsys.readouterr().out
    assert "## two:random (own)" in text and "told:random" not in text
