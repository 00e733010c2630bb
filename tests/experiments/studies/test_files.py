"""Rubbish in the files of the experiments: refused in one line, or an experiment that can begin."""

import copy
import re
from importlib import resources

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.benchmarks.yaml_files import FileError, parse
from offmarl.experiments.errors import UserError
from offmarl.experiments.studies.comparisons import Comparison
from offmarl.experiments.studies.experiment import File
from offmarl.experiments.studies.toy_games import ToyGame
from offmarl.reports.studies import numbers

FILES = {"toy_games.yaml": File[ToyGame], "comparisons.yaml": File[Comparison]}
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12)
NAMES = st.sampled_from(
    ["mac_flow", "fig14", "MAC-Flow.gap", "smac/3m:good", "quick", "return", "scatter", "xor", "zeta"]
)
VALUES = st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | WORDS | NAMES
JSON = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS | NAMES, inner, max_size=2), max_leaves=3
)
few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def read(file):
    return yaml.safe_load(resources.files("offmarl.experiments.studies").joinpath(file).read_text())


def check(file, content):
    """The experiments of a file; FileError where it is refused, and always in one line that names the file."""
    try:
        return parse(FILES[file], file, yaml.safe_dump(content, allow_unicode=True)).experiments
    except FileError as error:
        assert str(error).startswith(f"{file}: ") and len(str(error).splitlines()) == 1
        raise


def places(value, path=()):
    """Every place of a nested file."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(content, path, value):
    """The file with something else in one place."""
    content = copy.deepcopy(content)
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return content


@few
@given(data=st.data(), file=st.sampled_from(list(FILES)))
def test_any_change_is_refused_in_a_line_or_leaves_experiments_that_can_begin(data, file):
    content = read(file)
    path = data.draw(st.sampled_from(list(places(content))))
    add = data.draw(st.booleans())
    path = (*path[:-1], data.draw(WORDS | NAMES)) if add and isinstance(path[-1], str) else path
    try:
        found = check(file, changed(content, path, data.draw(JSON)))
    except FileError:
        return
    name = path[1] if path[0] == "experiments" and path[1] in found else data.draw(st.sampled_from(list(found)))
    study = found[name]
    if file == "toy_games.yaml":
        assert study.variations() and all(study.config_of(arm) for arm in study.arms)
        return
    for profile in study.profiles:
        try:
            assert study.jobs(profile, "embedded").keys() == study.arms.keys()
        except UserError as error:  # a dataset of another suite
            assert len(str(error).splitlines()) == 1


# The file, the place, what is put there, and what the message must contain.
WRONG = {
    "key": ("toy_games.yaml", ("experiments", "fig14", "titel"), "x", "unknown key 'titel' in .*fig14: .*'title'"),
    "budget's key": ("toy_games.yaml", ("defaults", "profiles", "quick", "stepz"), 1, "'stepz' .*'steps'"),
    "settings' key": ("toy_games.yaml", ("experiments", "fig16", "settings", "nam"), "x", "'nam' .*'name'"),
    "game": ("toy_games.yaml", ("experiments", "fig15", "game"), "xorr", "fig15: unknown game 'xorr': .*'xor'"),
    "method": (
        "toy_games.yaml",
        ("experiments", "fig3", "method"),
        "mac_flo",
        "unknown method 'mac_flo': .*'mac_flow'",
    ),
    "setting": ("toy_games.yaml", ("defaults", "config", "hiden"), [8], "'hiden': .*'hidden'"),
    "arm's setting": ("toy_games.yaml", ("experiments", "fig14", "arms", "MAC-Flow", "alfa"), 1.0, "'alfa': .*'alpha'"),
    "value": ("toy_games.yaml", ("experiments", "fig14", "config", "alpha"), "much", "alpha=much: write a value"),
    "argument": ("toy_games.yaml", ("experiments", "fig16", "settings", "name"), "zet", "'zet': .*'zeta'"),
    "no argument": ("toy_games.yaml", ("experiments", "fig16", "settings"), None, "payoff needs settings of zeta"),
    "picture": ("toy_games.yaml", ("experiments", "fig3", "picture"), "curve", "picture 'curve': .*'curves'"),
    "arm of a rule": (
        "toy_games.yaml",
        ("experiments", "fig3", "rules", 1, 0),
        "MAC-Flo.gap",
        "'MAC-Flo': .*'MAC-Flow'",
    ),
    "quantity": ("toy_games.yaml", ("experiments", "fig3", "rules", 2, 0), "MAC-Flow.gab", "'gab': .*'gap'"),
    "quantity of others": (
        "toy_games.yaml",
        ("experiments", "fig14", "rules", 0, 0),
        "MAC-Flow.gap",
        "quantity .*'gap'",
    ),
    "statistic": ("toy_games.yaml", ("experiments", "fig3", "rules", 2, 2), "MAC-Flow.gap.frist", "'frist': .*'first'"),
    "statistic of others": (
        "toy_games.yaml",
        ("experiments", "fig3", "rules", 2, 2),
        "MAC-Flow.gap.trend",
        "'trend': ",
    ),
    "sign": ("toy_games.yaml", ("experiments", "fig3", "rules", 2, 1), "=>", "rules.2.*'>='"),
    "no steps": ("toy_games.yaml", ("defaults", "profiles", "smoke", "steps"), 0, "smoke.steps: .*greater than 0"),
    "no file": ("toy_games.yaml", ("experiments",), [], "experiments: "),
    "comparison's method": (
        "comparisons.yaml",
        ("experiments", "fig10", "arms", "MA-FQL", "method"),
        "ma_fq",
        "'ma_fql'",
    ),
    "variant": (
        "comparisons.yaml",
        ("experiments", "fig7", "arms", "MAC-Flow", "variant"),
        "witout_igm",
        "'without_igm'",
    ),
    "comparison's setting": ("comparisons.yaml", ("experiments", "fig5", "set", "decay_stepz"), 0, "'decay_steps'"),
    "arm's key": ("comparisons.yaml", ("experiments", "fig5", "arms", "BC", "shar"), 0.0, "'shar' .*'share'"),
    "share": (
        "comparisons.yaml",
        ("experiments", "fig5", "arms", "BC", "share"),
        2.0,
        "share: .*less than or equal to 1",
    ),
    "suite": ("comparisons.yaml", ("defaults", "profiles", "quick", "datasets", "smc"), [], "suite 'smc': .*'smac'"),
    "task": ("comparisons.yaml", ("defaults", "profiles", "quick", "datasets", "smac"), ["smac/3mm"], "'smac/3m'"),
    "quality": ("comparisons.yaml", ("defaults", "profiles", "quick", "datasets", "smac"), ["smac/3m:god"], "'good'"),
    "profile": ("comparisons.yaml", ("experiments", "om2p-fig2", "datasets", "quik"), {}, "profile 'quik': .*'quick'"),
    "quantity to draw": (
        "comparisons.yaml",
        ("experiments", "fig6", "quantities"),
        ["retrun"],
        "quantity 'retrun': .*'return'",
    ),
    "offline gain": ("comparisons.yaml", ("experiments", "fig6", "rules", 0, 0), "MAC-Flow.relative.gain", "'gain': "),
    "comparison's picture": ("comparisons.yaml", ("experiments", "fig6", "picture"), "learnin", "'learning'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_with_file_key_reason_and_nearest_name(what):
    file, path, value, expected = WRONG[what]
    with pytest.raises(FileError) as refused:
        check(file, changed(read(file), path, value))
    assert re.search(expected, str(refused.value)), refused.value


@pytest.mark.parametrize("file", FILES)
def test_every_rule_of_the_files_is_read_by_reports(file):
    found = check(file, read(file))
    for study in found.values():
        terms = [term for rule in study.rules for term in rule[::2] if isinstance(term, str)]
        for term in terms:
            quantity = re.search(r"\.([a-z_]+)(\.[a-z]+)?$", term)[1]
            arm = re.sub(r"^\d+(\.\d+)? ", "", term).partition(f".{quantity}")[0]
            rows = [
                {"arm": arm, "setting": k, "seed": 0, "step": step, quantity: 1.0 + k + step}
                for k in (0, 1)
                for step in (0, 2)
            ]
            assert (
                len(numbers({"rows": rows, "budget": {"steps": 2}, "online": study.model_dump().get("online")}, term))
                == 1
            )


def test_an_error_of_input_is_one_of_values():
    """Models of files turn it into a message that names the file."""
    assert issubclass(UserError, ValueError)
