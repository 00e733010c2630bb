"""`offmarl data derive` as it is typed: what it makes is trained, carded, reported and verified as any dataset."""

import json
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from offmarl.datasets.catalogue import catalogue
from offmarl.experiments.cli import main

EXAMPLE = resources.files("offmarl.benchmarks.own").joinpath("example.py").read_text()
TASK = EXAMPLE.replace("FAMILY/template", "lights/two").replace("TITLE", "Two lights")
TASK = TASK.replace('{"random": "template-random.npz"}', '{"a": "a.npz", "b": "b.npz"}')


@pytest.fixture(autouse=True)
def task(tmp_path, monkeypatch, no_leftovers):
    """A task with two datasets of six episodes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    (tmp_path / "two.py").write_text(TASK)
    for name in ("a", "b"):
        words = f"data record --task two.py --policy random --episodes 6 --out {name}.npz"
        assert main(words.split()) == 0


def derive(words):
    return main(["data", "derive", *words.split(), "--task", "two.py"])


def train(datasets):
    words = f"run --task two.py --tasks {datasets} --profile smoke --algorithms bc --seeds 0 --jobs 1 --matmul mkl"
    return main([*words.split(), "--set", "all.hidden=[8]"])


def results(tmp_path):
    found = [json.loads(path.read_text()) for path in (tmp_path / "results/runs").glob("*/run.json")]
    return {record["cell"]["quality"]: record for record in found}


def test_all_of_a_dataset_gives_its_run_bit_for_bit_and_a_row_says_what_it_is(tmp_path, capsys):
    assert derive("all --from lights/two:a") == 0
    assert derive("all --from lights/two:a") == 0  # again: it is there
    assert derive("half --from lights/two:a,lights/two:b:0.5 --episodes 4") == 0
    assert train("lights/two:a,lights/two:all,lights/two:half") == 0
    found, out = results(tmp_path), " ".join(capsys.readouterr().out.split())
    assert found["all"]["evaluations"] == found["a"]["evaluations"]
    assert found["half"]["evaluations"] != found["a"]["evaluations"]
    assert len({record["protocol"]["data"] for record in found.values()}) == 3
    origin = "2 of 6 episodes of lights/two:a and 2 of 6 episodes of lights/two:b, seed 0"
    assert f"two half: {origin}" in out
    folder = tmp_path / "results/reports/lights-own"
    assert origin in (folder / "table.md").read_text()
    assert pd.read_csv(folder / "table.csv").query("quality == 'half'")["made_from"].unique().tolist() == [origin]
    for words in ("verify", "report", "data card lights/two:half", "data check lights/two:half", "data list"):
        assert main([*words.split(), "--task", "two.py"]) == 0, words
    assert "all sound" in (told := capsys.readouterr().out) and origin in told
    assert main(["report", "--suite", "lights", "--task", "two.py", "--site", "site"]) == 0
    assert origin in (tmp_path / "site/datasets/lights.two.half.own.html").read_text()


def test_only_what_is_named_in_full_is_trained(tmp_path):
    assert derive("few --from lights/two:a --episodes 2") == 0
    assert derive("fewer --from lights/two:few --fraction 0.5") == 0
    assert train("lights/two") == 0
    assert sorted(results(tmp_path)) == ["a", "b"]
    assert catalogue("own")["lights/two", "fewer"].trained_as == "a"
    assert derive("joined --from lights/two:few,lights/two:b") == 0
    assert catalogue("own")["lights/two", "joined"].trained_as == "b"  # six episodes of eight


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("x --from lights/two:c", "unknown quality of lights/two 'c'"),
        ("x --from lights/two", "must be task:quality"),
        ("x --from lights/two:a --fraction 0", "--fraction 0: write a share above 0 and at most 1"),
        ("x --from lights/two:a --fraction 2", "--fraction 2: write a share above 0 and at most 1"),
        ("x --from lights/two:a --episodes 7", "7 episodes of lights/two:a are asked for, and 6 may be taken"),
        ("x --from lights/two:a --only-behaviour 4", "has no behaviour 4; it has 0"),
        ("x --from lights/two:a --returns-like lights/two:z", "unknown quality of lights/two 'z'"),
        ("x --from lights/two:a:0.5,lights/two:b:0.6", "the weights 0.5 + 0.6 must be above 0 and sum to 1"),
        ("x --from lights/two:a:0.5", "the weights 0.5 must be"),
        ("x --from lights/two:a,lights/two:b:1", r"the weights ? + 1 must be"),
        ("x --from lights/two:a,lights/two:a", "lights/two:a is named twice"),
        ("a --from lights/two:b", "a: is a quality of lights/two already (own)"),
        ("../x --from lights/two:b", "a quality's name has small letters"),
    ],
)
def test_wrong_input_ends_in_a_line_and_leaves_nothing(tmp_path, capsys, words, reason):
    assert derive(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert not list((tmp_path / "data").rglob("*x*"))


def test_a_name_has_one_recipe(tmp_path, capsys):
    assert derive("few --from lights/two:a --episodes 2") == 0
    assert derive("few --from lights/two:a --episodes 3") == 2
    assert "few: is another derived dataset" in capsys.readouterr().err


def test_a_parent_that_changed_is_noticed_by_every_command(tmp_path, capsys):
    assert derive("few --from lights/two:a --episodes 2") == 0
    assert train("lights/two:few") == 0
    arrays = dict(np.load("a.npz"))
    np.savez("a.npz", **arrays | {"rewards": arrays["rewards"] + 1})
    for words, code in {"data card lights/two:few": 2, "data check lights/two:few": 1, "verify": 0}.items():
        capsys.readouterr()
        assert main([*words.split(), "--task", "two.py"]) == code
        assert "lights/two:few: lights/two:a, which it is made from, has changed since" in "".join(capsys.readouterr())
    assert train("lights/two:few") == 3
    assert "has changed since" in capsys.readouterr().err
    (tmp_path / "data/derived/own/lights-two-few.json").unlink()
    run_id = next((tmp_path / "results/runs").iterdir()).name
    assert main(["rerun", run_id, "--task", "two.py"]) == 2
    assert "lights/two:few (own): is not here; derive or import it again" in capsys.readouterr().err
    assert derive("few --from lights/two:a --episodes 2") == 0 and train("lights/two:few") == 0


def test_damaged_arrays_are_made_again(tmp_path):
    assert derive("few --from lights/two:a --episodes 2") == 0
    file = tmp_path / "data/derived/own/lights-two-few.npz"
    before = file.read_bytes()
    file.write_bytes(before[:-9])
    catalogue("own")["lights/two", "few"].load()
    assert file.read_bytes() == before


NO_CARD = {
    "empty": lambda card: {},
    "no parents": lambda card: card | {"lineage": {"how": card["lineage"]["how"]}},
    "a parent is missing": lambda card: card | {"lineage": card["lineage"] | {"of": {}}},
    "a parent without facts": lambda card: card | {"lineage": card["lineage"] | {"of": {"lights/two:a": {}}}},
    "a number for a name": lambda card: card | {"dataset": 5},
    "no quality": lambda card: card | {"dataset": "lights/two"},
    "a later recipe": lambda card: (
        card | {"lineage": {**card["lineage"], "how": card["lineage"]["how"] | {"tempo": 1}}}
    ),
    "a text for weights": lambda card: (
        card | {"lineage": {**card["lineage"], "how": card["lineage"]["how"] | {"weights": "x"}}}
    ),
}


@pytest.mark.parametrize("fault", NO_CARD)
def test_a_damaged_card_is_left_out_with_a_word(tmp_path, fault, capsys):
    assert derive("few --from lights/two:a --episodes 2") == 0
    file = tmp_path / "data/derived/own/lights-two-few.json"
    file.write_text(json.dumps(NO_CARD[fault](json.loads(file.read_text()))))
    assert ("lights/two", "few") not in catalogue("own")
    assert "is not the card of a derived dataset" in capsys.readouterr().err
    assert main(["data", "list", "--source", "own", "--task", "two.py"]) == 0


def test_what_is_measured_of_it_is_not_taken_for_its_card(capsys):
    assert derive("few --from lights/two:a --episodes 2") == 0
    for _ in range(2):
        assert main(["data", "card", "lights/two:few", "--source", "own", "--task", "two.py", "--out", "cards"]) == 0
    assert "is not the card" not in capsys.readouterr().err


def test_a_policy_is_chosen_on_it_like_on_any_dataset(capsys):
    assert derive("few --from lights/two:a --episodes 5") == 0
    words = "judge lights/two:few --task two.py --source own --profile smoke --algorithms bc --jobs 1"
    assert main(words.split()) == 0
    assert "lights/two:few" in capsys.readouterr().out
