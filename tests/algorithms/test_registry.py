"""Discovery: a new file is a new method."""

import sys

import pytest

import offmarl.algorithms
from offmarl.algorithms import registry
from offmarl.algorithms.parts.algorithm import Algorithm
from offmarl.algorithms.parts.planner import Planner


def plant(tmp_path, monkeypatch, file, name, title=""):
    """A method in a folder of its own, as if it lay in algorithms/."""
    source = (
        "from offmarl.algorithms import bc\n\n\n"
        f"class Mine(bc.BC):\n    name = '{name}'\n" + (f"    title = '{title}'\n" if title else "") + "\n\n"
        "class Helper:\n    name = 'helper'\n"
    )
    (tmp_path / f"{file}.py").write_text(source)
    monkeypatch.setattr(offmarl.algorithms, "__path__", [*offmarl.algorithms.__path__, str(tmp_path)])


@pytest.fixture
def fresh_registry():
    """A scan of its own for this test, and none of its finds left behind."""
    known = set(sys.modules)
    yield registry.__wrapped__
    for module in set(sys.modules) - known:
        if module.startswith("offmarl.algorithms."):
            del sys.modules[module]
            delattr(offmarl.algorithms, module.rsplit(".", 1)[-1])


def test_a_new_file_is_a_new_method(tmp_path, monkeypatch, fresh_registry):
    before = fresh_registry()
    plant(tmp_path, monkeypatch, "planted", "planted")
    after = fresh_registry()
    assert set(after) - set(before) == {"planted"}
    assert {name: after[name] for name in before} == before
    assert after["planted"].title == "planted"  # not that of its parent


def test_a_name_that_two_files_claim_is_refused(tmp_path, monkeypatch, fresh_registry):
    taken = next(iter(registry()))
    plant(tmp_path, monkeypatch, "usurper", taken)
    with pytest.raises(TypeError, match=rf"usurper.*'{taken}' is taken by|{taken}.*is taken by .*usurper"):
        fresh_registry()


def test_a_title_that_two_methods_have_is_refused_for_tables_tell_them_apart_by_it(
    tmp_path, monkeypatch, fresh_registry
):
    plant(tmp_path, monkeypatch, "zz_twin", "twin", title="MAC-Flow")
    with pytest.raises(TypeError, match="twin: the title 'MAC-Flow' is that of mac_flow; give it its own"):
        fresh_registry()


def test_the_abstract_base_is_no_method():
    assert Algorithm not in registry().values()


ORDER = (
    *(
        "views",
        "build",
        "learning_rates",
        "prepare",
        "goes_online",
        "losses",
        "act",
        "rewarded",
        "acting_rule",
        "nfe",
        "keep_agent",
        "begin_update",
        "after_update",
        "step_variant",
    ),
    *(
        "critic_loss",
        "critic_losses",
        "conservative_loss",
        "value_loss",
        "flow_loss",
        "denoiser_loss",
        "score_loss",
        "inverse_loss",
    ),
    *("policy_loss", "policy_losses"),
)


@pytest.mark.parametrize("cls", [*registry().values(), Planner], ids=lambda cls: cls.__name__)
def test_functions_have_the_same_order_in_every_file_with_helpers_last(cls):
    functions = [name for name, value in vars(cls).items() if callable(getattr(value, "__func__", value))]
    functions = [name for name in functions if name != "Config"]
    places = [ORDER.index(name) if name in ORDER else len(ORDER) for name in functions]
    assert places == sorted(places), functions
    assert {name for name in functions if name.endswith(("_loss", "_losses"))} <= set(ORDER)


def test_every_method_of_ours_declares_what_may_be_searched():
    ours = [method for method in registry().values() if method.__module__.startswith("offmarl.algorithms.")]
    assert len(ours) > 10 and [method.name for method in ours if not method.tunes] == []
