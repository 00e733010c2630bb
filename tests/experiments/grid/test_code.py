"""The sums of code that tell a stale run."""

import sys

import pytest

from offmarl.algorithms import registry
from offmarl.benchmarks import source
from offmarl.benchmarks.tasks import tasks
from offmarl.experiments.grid import code

METHOD = '''
"""A method."""
from offmarl.algorithms.bc import BC
from helpers import double

class Mine(BC):
    """Mine."""
    name = "mine"

    def losses(self, batch):
        # twice
        return {key: double(value) for key, value in super().losses(batch).items()}
'''
HELPERS = "def double(x):\n    return 2 * x\n"


@pytest.fixture
def sum_of(tmp_path, monkeypatch):
    """The sum of a method whose file and helper have these texts."""

    def build(text=METHOD, helpers=HELPERS):
        for cached in (source._tree, source._form):
            cached.cache_clear()
        (tmp_path / "mine.py").write_text(text)
        (tmp_path / "helpers.py").write_text(helpers)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "helpers", raising=False)
        method = source._import_file(str(tmp_path / "mine.py"), "offmarl.algorithms", ValueError).Mine
        monkeypatch.setitem(registry(), "mine", method)
        return code.code_sums("mine", "smac/3m")["method"]

    return build


@pytest.mark.parametrize(
    "text",
    [
        METHOD.replace("# twice", "# two times"),
        METHOD.replace('"""Mine."""', '"""My own."""'),
        METHOD.replace("def losses(self, batch):", "def losses(\n        self, batch\n    ):"),
        METHOD.replace("double(value)", "(double((value)))"),
    ],
    ids=["comment", "docstring", "layout", "brackets"],
)
def test_what_changes_no_result_changes_no_sum(sum_of, text):
    assert text != METHOD and sum_of() == sum_of(text)


@pytest.mark.parametrize(
    "texts",
    [
        (METHOD.replace("double(value)", "double(-value)"),),
        (METHOD.replace("    def losses", '    acts_by = "mode"\n\n    def losses'),),
        (METHOD, HELPERS.replace("2 *", "3 *")),
    ],
    ids=["sign", "attribute", "helper beside it"],
)
def test_what_may_change_a_result_changes_the_sum(sum_of, texts):
    assert sum_of() != sum_of(*texts)


@pytest.mark.parametrize("text", ["from .nets import f", "from mine.nets import f", "from mine import nets"])
def test_a_method_in_a_package_counts_what_it_imports_of_the_package(tmp_path, text):
    for name, content in {"nets/__init__.py": "f = 1", "methods/a.py": text.replace("from .", "from ..")}.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(content)
    for folder in ("", "methods"):
        (tmp_path / "mine" / folder / "__init__.py").touch()
    source._tree.cache_clear()
    source._form.cache_clear()
    before = source.sources(tmp_path / "mine" / "methods" / "a.py")
    (tmp_path / "mine" / "nets" / "__init__.py").write_text("f = 2")
    source._tree.cache_clear()
    source._form.cache_clear()
    assert source.sources(tmp_path / "mine" / "methods" / "a.py") != before


def test_a_method_counts_the_parts_and_methods_that_it_uses():
    folder = source.FOLDERS["offmarl.algorithms"]
    names = {line.split()[0] for line in source.sources(folder / "ma_fql.py")}
    assert {"ma_fql.py", "mac_flow.py", "flow.py", "nets.py", "algorithm.py"} <= names
    assert "planner.py" not in names


def test_a_task_counts_its_entry_and_its_simulator():
    sums = {task: code.code_sums("bc", task)["task"] for task in ("smac/3m", "smac/8m", "mpe/spread", "mpe/tag")}
    assert len(set(sums.values())) == 4
    names = {line.split()[0] for line in code._adapter_sources("smax.env:SmaxEnv")}
    assert names == {"env.py", "battle.py", "starts.py", "units.py"}


def test_a_run_is_stale_where_a_stored_sum_differs():
    cell = {"algorithm": "bc", "task": "smac/3m"}
    today = code.code_sums(**cell)
    assert code.why_stale({"cell": cell, "code_sums": today}) is None
    assert "code of its method has changed" in code.why_stale({"cell": cell, "code_sums": today | {"method": "0"}})
    both = code.why_stale({"cell": cell, "code_sums": {"method": "0", "task": "0"}})
    assert "code of its method and its task has changed" in both


def test_where_it_cannot_be_told_a_run_is_not_stale():
    cell = {"algorithm": "bc", "task": "smac/3m"}
    assert code.why_stale({"cell": cell}) is None  # an older record
    assert code.why_stale({"cell": cell | {"algorithm": "forgotten"}, "code_sums": {"method": "0"}}) is None
    assert code.why_stale({"cell": cell | {"task": "smac/none"}, "code_sums": {"method": "0"}}) is None


def test_a_change_that_is_known_to_change_no_number_makes_nothing_stale(monkeypatch):
    known = {"old": code.EqualCode(since="new", seen="tried")}
    monkeypatch.setattr(code, "packaged", lambda *_: known)
    assert code.changed_parts({"method": "old", "task": "t"}, {"method": "new", "task": "t"}) == []
    assert code.changed_parts({"method": "older", "task": "old"}, {"method": "new", "task": "new"}) == ["method"]
    assert code.changed_parts({"method": "old"}, {"method": "newer"}) == ["method"]  # changed again since
    assert code.changed_parts({"method": "new"}, {"method": "old"}) == ["method"]  # not the other way round


def test_equal_code_that_ships_leads_to_code_of_today():
    """An entry that leads nowhere would only grow the file."""
    today = {code.code_sums(name, "smac/3m")["method"] for name in registry()}
    today |= {code.code_sums("bc", task)["task"] for task in tasks()}
    known = code.packaged(dict[str, code.EqualCode], code.PACKAGE, "equal_code.yaml")
    assert not known.keys() & today and all(one.since in today and one.seen for one in known.values())
