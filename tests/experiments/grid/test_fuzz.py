"""Rubbish in, one line out: whatever is written into options and suites, nothing breaks and nothing is guessed."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.algorithms import registry
from offmarl.experiments.commands.options import parse_seeds
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid import suite as files

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12)
NAMES = st.sampled_from(["bc", "mac_flow", "all", "hidden", "alpha", "batch_size", "smac/3m", "mpe/spread", "good"])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.lists(st.integers(-3, 3), max_size=3), st.just({})
)
JSON = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2), max_leaves=3
)
few = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def refused_or(work):
    """What came of it, or None where it was refused in one line."""
    try:
        return work()
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(error)
        return None


@few
@given(st.tuples(NAMES | WORDS, NAMES | WORDS, VALUES).map(lambda t: f"{t[0]}.{t[1]}={json.dumps(t[2])}") | WORDS)
def test_any_setting_is_taken_as_its_kind_or_refused(text):
    request = grid.Request("smac", "smoke", algorithms=["bc", "mac_flow"], tasks=["smac/3m:good"], overrides=[text])
    for job in refused_or(lambda: grid.jobs(request)) or ():
        config = job.algorithm_config()
        for name, value in vars(registry()[job.algorithm].Config()).items():
            kind = (int, float) if isinstance(value, float) else type(value)
            assert isinstance(getattr(config, name), kind), name


@few
@given(*[st.none() | st.lists(NAMES | WORDS, max_size=2)] * 2, st.none() | WORDS, NAMES | WORDS)
def test_any_selection_is_known_or_refused(tasks, algorithms, seeds, variant):
    def select():
        chosen = parse_seeds(seeds)
        return grid.jobs(grid.Request("continuous", "smoke", "embedded", algorithms, tasks, chosen, variant))

    refused_or(select)


@few
@given(WORDS | st.text(max_size=60))
def test_any_text_is_a_suite_or_refused(text):
    refused_or(lambda: files.check_suite("suites/x.yaml", files.parse_yaml("suites/x.yaml", text)))


@few
@given(st.data())
def test_any_change_of_a_suite_is_refused_or_leaves_it_readable(data):
    suite = copy.deepcopy(files.load_suite("smac"))
    key = data.draw(st.sampled_from(list(suite)) | WORDS)
    suite[key] = data.draw(JSON)
    if changed := refused_or(lambda: files.check_suite("suites/x.yaml", suite)):
        assert changed[key] == suite[key] and key in files.SUITE_KEYS


def test_a_misspelt_key_names_the_nearest_and_a_broken_file_its_line():
    suite = files.load_suite("smac")
    with pytest.raises(UserError, match="suites/x.yaml.*'algoritms'.*did you mean 'algorithms'"):
        files.check_suite("suites/x.yaml", suite | {"algoritms": {}})
    with pytest.raises(UserError, match="suites/x.yaml, line 2: is not YAML"):
        files.parse_yaml("suites/x.yaml", "title: a\n\tpaper: b\n")
