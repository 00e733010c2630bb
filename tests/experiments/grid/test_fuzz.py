"""Rubbish in, one line out: whatever is written into options and suites, nothing breaks and nothing is guessed."""

import json
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offmarl.algorithms import registry
from offmarl.benchmarks.yaml_files import FileError, parse
from offmarl.experiments.commands.options import parse_seeds
from offmarl.experiments.errors import UserError
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.config import parse_overrides
from offmarl.experiments.grid.suite import Profile, Suite, load_suite

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
    except (UserError, FileError) as error:
        assert len(str(error).splitlines()) == 1 and str(error)
        return None


@few
@given(st.tuples(NAMES | WORDS, NAMES | WORDS, VALUES).map(lambda t: f"{t[0]}.{t[1]}={json.dumps(t[2])}") | WORDS)
def test_any_setting_is_taken_as_its_kind_or_refused(text):
    def read():
        chosen = {"algorithms": ["bc", "mac_flow"], "tasks": ["smac/3m:good"], "overrides": parse_overrides([text])}
        return grid.jobs(grid.Request("smac", "smoke", **chosen))

    for job in refused_or(read) or ():
        config = job.config
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
    refused_or(lambda: parse(Suite, "suites/x.yaml", text))


@few
@given(st.data())
def test_any_change_of_a_suite_is_refused_or_leaves_it_readable(data):
    suite = load_suite("smac").model_dump(exclude_unset=True)
    key = data.draw(st.sampled_from(list(suite)) | WORDS)
    suite[key] = data.draw(JSON)
    text = json.dumps(suite, ensure_ascii=False)
    if changed := refused_or(lambda: parse(Suite, "suites/x.yaml", text)):
        found = changed.model_dump(exclude_unset=True)[key]
        assert repr(found) == repr(yaml.safe_load(text)[key]) and key in Suite.model_fields  # as NaN is not NaN


def test_a_misspelt_key_names_the_nearest_and_a_broken_file_its_line():
    suite = load_suite("smac").model_dump(exclude_unset=True)
    with pytest.raises(FileError, match="suites/x.yaml.*'algoritms'.*did you mean 'algorithms'"):
        parse(Suite, "suites/x.yaml", json.dumps(suite | {"algoritms": {}}))
    with pytest.raises(FileError, match="suites/x.yaml, line 2: is not YAML"):
        parse(Suite, "suites/x.yaml", "title: a\n\tpaper: b\n")


CLAIM = {"text": "gains", "rule": "gains", "method": "mac_flow", "others": ["bc"]}
GAINS = CLAIM | {"groups": ["SMACv1"], "quality": "poor", "than": ["good"]}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (
            "groups",
            {"SMACv1": {"smac/3n": ["good"]}},
            "groups.SMACv1.smac/3n: unknown task 'smac/3n': did you mean 'smac/3m'",
        ),
        ("groups", {"SMACv1": {"smac/3m": "good"}}, "groups.SMACv1.smac/3m: input should be a valid list"),
        ("profiles", {"quik": {"steps": 1}}, "profiles: unknown profile 'quik': did you mean 'quick'"),
        ("profiles", {"quick": {"step": 1}}, "unknown key 'step' in profiles.quick: did you mean 'steps'"),
        ("profiles", {"quick": {"tasks": ["smac/3n"]}}, "profiles.quick.tasks.0: unknown task 'smac/3n'"),
        ("algorithms", ["bc"], "algorithms: input should be a valid dictionary"),
        ("algorithms", {}, "algorithms: dictionary should have at least 1 item"),
        ("algorithms", {"bc": "A", "icq": "A"}, "algorithms: two methods are called 'A'"),
        ("groups", {}, "groups: dictionary should have at least 1 item"),
        ("groups", {"SMACv1": {}}, "groups.SMACv1: dictionary should have at least 1 item"),
        ("paper", "", "published: name its paper too: paper: …"),
        ("algorithms", {"bcx": "BC"}, "algorithms.bcx: unknown algorithm 'bcx': did you mean 'bc'"),
        ("groups", {"SMACv1": {"smac/3m": []}}, "groups.SMACv1.smac/3m: list should have at least 1 item"),
        ("groups", {"SMACv1": {"smac/3m": ["good"] * 2}}, "groups.SMACv1.smac/3m: good stands there twice"),
        (
            "groups",
            {"One": {"smac/3m": ["good", "poor"]}, "Two": {"smac/3m": ["poor"]}},
            "smac/3m:poor stands in two groups; leave it in one",
        ),
        ("claims", [CLAIM | {"rule": "ahead"}], "claims.0: groups: name one at least, on which it should be ahead"),
        ("claims", [CLAIM], "claims.0: gains are of one group, on data of a quality and of others"),
        ("claims", [GAINS | {"groups": ["SMACv1", "SMACv2"]}], "claims.0: gains are of one group"),
        ("claims", [GAINS | {"than": ["god"]}], "unknown quality in SMACv1 'god': did you mean 'good'"),
        ("headline", "omar", "unknown method of the headline 'omar'"),
        ("normalised", ["mpe/sprd"], "normalised.0: unknown task 'mpe/sprd'"),
        ("settings", {"bc": {"smac": {"hiden": [8]}}}, "unknown setting of bc 'hiden': did you mean 'hidden'"),
        ("settings", {"bcx": {"smac": {}}}, "settings.bcx: unknown algorithm 'bcx'"),
        ("bench", {"bc": [{"hiden": [8]}]}, "unknown setting of bc 'hiden'"),
        (
            "variants",
            {"mac_flow": {"paper": "relased"}},
            "unknown variant of mac_flow 'relased': did you mean 'released'",
        ),
        ("notes", {"bcx": {"all": "x"}}, "notes.bcx: unknown algorithm 'bcx'"),
        ("scaling", {"bcx": {"agent": [0, 0]}}, "scaling.bcx: unknown algorithm 'bcx'"),
        ("profiles", {"quick": {"seeds": []}}, "profiles.quick.seeds: list should have at least 1 item"),
        ("profiles", {"quick": {"seeds": [0, 0]}}, "profiles.quick.seeds: 0 stands there twice"),
        ("profiles", {"quick": {"config": {"hiden": [8]}}}, "profiles.quick.config.hiden: unknown setting 'hiden'"),
        ("profiles", {"quick": {"fixed": {"bcx": {}}}}, "profiles.quick.fixed.bcx: unknown algorithm 'bcx'"),
        ("profiles", {"quick": {"own_steps": {"bcx": 9}}}, "profiles.quick.own_steps.bcx: unknown algorithm 'bcx'"),
    ],
)
def test_a_fault_of_a_suite_names_file_key_and_reason(key, value, reason):
    suite = load_suite("smac").model_dump(exclude_unset=True)
    with pytest.raises(FileError, match=re.escape(f"suites/x.yaml: {reason}")):
        parse(Suite, "suites/x.yaml", json.dumps(suite | {key: value}))


def test_faults_of_profiles_name_file_key_and_reason():
    with pytest.raises(FileError, match="profiles.yaml: unknown key 'stepz' in quick: did you mean 'steps'"):
        parse(dict[str, Profile], "profiles.yaml", "quick: {stepz: 3}")
    quick = {"variant": "quick", "seeds": [0], "steps": 1, "eval_every": 1, "eval_episodes": 1}
    assert parse(dict[str, Profile], "profiles.yaml", json.dumps({"quick": quick}))["quick"].steps == 1
    wrong = {"steps": 0, "seeds": [-1], "eval_every": "often", "own_steps": {"bc": 1.5}, "trial_steps": {"mujoco": 9}}
    for key, value in wrong.items():
        with pytest.raises(FileError, match=f"profiles.yaml: quick.{key}"):
            parse(dict[str, Profile], "profiles.yaml", json.dumps({"quick": quick | {key: value}}))
    with pytest.raises(FileError, match="profiles.yaml: quick: lacks seeds"):
        parse(dict[str, Profile], "profiles.yaml", json.dumps({"quick": {k: quick[k] for k in quick if k != "seeds"}}))
