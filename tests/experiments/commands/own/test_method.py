"""A method of your own: written by `new`, named by its file, trained beside ours, checked by `validate`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from offmarl.algorithms import PATHS, registry
from offmarl.experiments.cli import main
from offmarl.experiments.commands.own import validate

CHECKOUT = Path(__file__).parents[4]


pytestmark = pytest.mark.usefixtures("no_leftovers")


@pytest.fixture
def example(tmp_path):
    """The method that CONTRIBUTING.md walks through."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    code, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)  # the others are tasks
    assert len(code.splitlines()) < 60
    file = tmp_path / "noisy_bc.py"
    file.write_text(code)
    return file


def run(results, *words):
    place = ["--suite", "continuous", "--profile", "smoke", "--tasks", "mpe/spread:medium", "--jobs", "1"]
    return main(["run", *place, "--set", "all.hidden=[16]", "--results", str(results), *map(str, words)])


def test_the_walkthroughs_method_stands_in_the_table_beside_ours(example, tmp_path, capsys):
    words = ["--method-file", example, "--algorithms", "noisy_bc,bc"]
    assert run(tmp_path / "results", *words) == 0
    assert "Noisy BC" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "results" / "reports" / "continuous" / "table.csv")
    row = table.query("algorithm == 'noisy_bc' and task == 'mpe/spread' and quality == 'medium'").iloc[0]
    assert row["title"] == "Noisy BC" and row["n_seeds"] == 2 and row["status"] == "done"


def test_a_new_method_trains_at_once_and_is_never_written_over(tmp_path, capsys):
    assert main(["new", "my_own", "--dir", str(tmp_path)]) == 0
    text = (tmp_path / "my_own.py").read_text()
    assert 'name = "my_own"' in text and "class MyOwn(" in text and "emplate" not in text and "TITLE" not in text
    assert run(tmp_path / "results", "--method-file", tmp_path / "my_own.py", "--algorithms", "my_own") == 0
    capsys.readouterr()
    (tmp_path / "my_own.py").write_text("mine")
    assert main(["new", "my_own", "--dir", str(tmp_path)]) == 2
    assert (tmp_path / "my_own.py").read_text() == "mine"
    for words in (["bc"], ["My-Own"], ["x", "--dir", str(tmp_path / "none")], ["a" * 300]):
        assert main(["new", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "has no subclass of Algorithm"),
        ("class Mine(bc.BC):\n    name = 'bc'\n", "the name 'bc' is taken"),
        ("class Mine(bc.BC):\n    name = '../up'\n", "must have small letters"),
        ("class Mine(bc.BC):\n    name = 'all'\n", "the name 'all' must have small letters"),
        ("class Mine(bc.BC):\n    name = 'mine'\n    title = None\n", "mine: title: write a line of text"),
        (
            "class Mine(bc.BC):\n    name = 'mine'\n    variants = {'a/b': {}}\n",
            "mine: variants: write a dict of names",
        ),
        ("class Mine(bc.BC):\n    name = 'mine'\n    variants = {'a:both': {}}\n", "mine: variants: write a dict of"),
        ("class Mine(bc.BC):\n    name = 'mine'\n    variants = ['a']\n", "mine: variants: write a dict of names"),
        ("class Mine(bc.BC):\n    name = 'mine'\n    tunes = {'act_by': 'sample'}\n", "mine: tunes: write a dict of"),
        ("class Mine(bc.BC):\n    name = 'mine'\n    actions = 'discrete'\n", "mine: actions: write a frozenset of"),
        (
            "class Mine(bc.BC):\n    name = 'mine'\n    actions = frozenset({'both'})\n",
            "mine: actions: write a frozenset",
        ),
        ("class Half(Algorithm):\n    name = 'half'\n", "half: missing title"),
        ("class A(bc.BC):\n    name = 'a'\n\n\nclass B(bc.BC):\n    name = 'a'\n", "the name 'a' is taken"),
        ("raise SystemExit(5)", "SystemExit"),
        (None, "is not a Python file"),
    ],
)
def test_a_file_that_is_no_method_is_refused_in_one_line(tmp_path, text, reason, capsys):
    file = tmp_path / "broken.py"
    if text is not None:
        file.write_text(
            "from offmarl.algorithms import bc\nfrom offmarl.algorithms.parts.algorithm import Algorithm\n\n\n" + text
        )
    assert run(tmp_path / "results", "--method-file", file, "--algorithms", "broken") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line and reason in line
    assert not (tmp_path / "results").exists()


FAULTY = {  # from, to, and what a dry run says
    "build": ("def build(self)", "def build(self, more)", "TypeError"),
    "act": (
        "def act(",
        "def act(self, obs, legal=None, memory=None):\n        return obs, memory\n\n    def acts(",
        "actions: shape",
    ),
}


@pytest.mark.parametrize("part", FAULTY)
def test_a_method_that_fails_fails_a_dry_run_in_one_line(example, tmp_path, part, capsys):
    before, after, reason = FAULTY[part]
    example.write_text(example.read_text().replace(before, after))
    assert run(tmp_path / "results", "--method-file", example, "--algorithms", "noisy_bc", "--dry-run") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("offmarl: ")]
    assert line.startswith("offmarl: spread:medium noisy_bc: fails in its first updates or steps") and reason in line


def test_a_loss_that_is_not_one_number_a_seed_is_named(example, tmp_path, capsys):
    example.write_text(example.read_text().replace("self.policy_loss(batch)}", "self.policy_loss(batch).mean()}"))
    assert run(tmp_path / "results", "--method-file", example, "--algorithms", "noisy_bc") == 1
    assert "the loss 'policy' has the shape []; give a number for each seed, [S]" in capsys.readouterr().err


def test_what_cannot_be_measured_is_told_and_the_others_are(example, tmp_path, capsys):
    example.write_text(example.read_text().replace("def build(self)", "def build(self, more)"))
    words = ["bench", "train", "--suite", "continuous", "--profile", "smoke", "--tasks", "mpe/spread:medium"]
    words += ["--algorithms", "noisy_bc,bc", "--seconds", "0.1", "--results", str(tmp_path / "results")]
    assert main([*words, "--method-file", str(example)]) == 1
    shown = capsys.readouterr()
    assert "mpe/spread noisy_bc, 1 seeds: not measured: TypeError" in shown.err and "bc" in shown.out


def test_a_suite_of_ones_own_may_have_it_and_its_report_names_its_file(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("offmarl.experiments.grid.suite.FILES", {})
    suite = tmp_path / "mine.yaml"
    suite.write_text("title: Mine\nalgorithms: {noisy_bc: Noisy}\ngroups: {Spread: {mpe/spread: [medium]}}\n")
    words = ["--suite", str(suite), "--results", str(tmp_path)]
    assert main(["report", *words]) == 2
    assert "unknown algorithm 'noisy_bc'" in (err := capsys.readouterr().err) and "--method-file FILE" in err
    assert main(["report", *words, "--method-file", str(example)]) == 0
    assert "Noisy" in capsys.readouterr().out


def test_the_old_name_of_the_option_still_works(example, tmp_path, capsys):
    assert run(tmp_path / "results", "--algorithm", example, "--algorithms", "noisy_bc", "--dry-run") == 0
    assert "noisy_bc" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = capsys.readouterr().out
    assert "--method-file FILE" in shown and "--algorithm FILE" not in shown


def test_a_file_alone_does_not_say_what_shall_run(example, tmp_path, capsys):
    assert run(tmp_path / "results", "--method-file", example) == 2
    assert "--algorithms" in capsys.readouterr().err


def test_a_broken_file_that_the_environment_names_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(PATHS, str(tmp_path / "gone.py"))
    registry.cache_clear()
    assert main(["run", "--suite", "smac", "--dry-run", "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "gone.py: is not a Python file" in line


def test_an_installed_package_may_bring_a_method(example, tmp_path):
    """Its entry point is found by a process that knows nothing else of it."""
    facts = tmp_path / "noisy_bc-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy_bc\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[offmarl.algorithms]\nnoisy_bc = noisy_bc\n")
    script = "from offmarl.algorithms import registry; print(registry()['noisy_bc'].title)"
    surroundings = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=surroundings, capture_output=True, text=True)
    assert done.stdout == "Noisy BC\n", done.stderr


BROKEN = """
    def after_update(self):
        self.nets["policy"].mlp.layers[0].weight.data[0] += self.nets["policy"].mlp.layers[0].weight.data[-1]
"""


def test_validate_tells_a_method_that_keeps_the_contract_from_one_that_does_not(example, capfd, monkeypatch):
    monkeypatch.setattr(validate, "CONTRACT", ("test_training.py",))
    monkeypatch.chdir(example.parent)  # where neither the folder's pytest files nor the user's options may count
    (example.parent / "conftest.py").write_text("raise SystemExit('the user's conftest')")
    (example.parent / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    assert main(["validate", example.name]) == 0
    out = capfd.readouterr().out
    assert "✓ seeds do not mix" in out and "✗" not in out
    assert "Noisy BC (noisy_bc)" in out and "mpe/spread:medium" in out and "network calls 1" in out
    example.write_text(example.read_text() + BROKEN)
    registry.cache_clear()
    assert main(["validate", str(example)]) == 1
    assert "✗ a seed learns the same whichever seeds train with it" in capfd.readouterr().out


def test_validate_without_pytest_says_how_to_install_it(example, capsys, monkeypatch):
    monkeypatch.setattr(validate, "find_spec", lambda name: None)
    assert main(["validate", str(example)]) == 2
    assert (
        capsys.readouterr().err
        == "offmarl: validate: pytest is missing; install it with: pip install 'offmarl[test]'\n"
    )
