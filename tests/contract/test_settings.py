"""The class of every method and its settings. A new file in algorithms/ is tested here without a change."""

import dataclasses
import json
import sys

import pytest

from offmarl.algorithms import registry
from offmarl.algorithms.parts.config import BaseConfig

SEEDS = (3, 5)
CLASSES = [pytest.param(cls, id=name) for name, cls in registry().items()]


def settings_of(cls):
    """Every value of every choice, and both values of every switch."""
    for field in dataclasses.fields(cls.Config):
        words = field.metadata.get("choices", (True, False) if isinstance(field.default, bool) else ())
        yield from ((field.name, word) for word in words)


SEARCHED = [pytest.param(cls, id=name) for name, cls in registry().items() if cls.tunes]
SETTINGS = [
    pytest.param(cls, space, name, word, id=f"{cls.name}-{space}-{name}={word}")
    for cls in registry().values()
    for space in sorted(cls.actions)
    for name, word in settings_of(cls)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_method_states_its_facts(cls):
    assert cls.name == cls.__module__.rsplit(".", 1)[-1]
    for fact in (cls.title, cls.paper, cls.source_code):
        assert isinstance(fact, str) and fact.strip()
    assert cls.execution in {"decentralised", "centralised"}
    assert isinstance(cls.actions, frozenset) and cls.actions and cls.actions <= {"discrete", "continuous"}
    assert sys.modules[cls.__module__].__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_settings_are_a_frozen_dataclass_that_can_be_stored_and_hashed(cls):
    assert dataclasses.is_dataclass(cls.Config) and issubclass(cls.Config, BaseConfig)
    config = cls.Config()  # every setting has a default
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.learning_rate = 1.0
    assert json.loads(json.dumps(dataclasses.asdict(config))).keys() == dataclasses.asdict(config).keys()
    assert hash(config) == hash(cls.Config())
    for field in dataclasses.fields(config):
        assert field.default in field.metadata.get("choices", (field.default,)), field.name


@pytest.mark.parametrize("cls", CLASSES)
def test_variants_change_known_settings_to_values_of_their_kind(cls):
    fields = {f.name: f for f in dataclasses.fields(cls.Config)}
    for variant, changes in cls.variants.items():
        assert variant.partition(":")[2] in ("", *cls.actions), variant
        assert changes.keys() <= fields.keys(), variant
        for name, value in changes.items():
            kinds = (int, float) if type(fields[name].default) is float else (type(fields[name].default),)
            assert type(value) in kinds, (variant, name)
            assert value in fields[name].metadata.get("choices", (value,)), (variant, name)


@pytest.mark.parametrize("cls", [pytest.param(cls, id=cls.name) for cls in registry().values()])
def test_the_default_settings_train_and_act(cls, make_spec, make_batch, make_data, tiny, look):
    for space in cls.actions:
        config = dataclasses.replace(cls.Config(), **{k: v for k, v in tiny(cls).items() if k.endswith("_steps")})
        algorithm = cls(make_spec(space), config, [0])  # of full width; how many steps it takes is a matter of time
        algorithm.prepare(make_data(algorithm.spec))
        losses = algorithm.update(make_batch(algorithm.spec, [0], window=config.window))
        assert all(value.isfinite().all() for value in losses.values())
        algorithm.act(*look(algorithm.spec, 1, 2))


@pytest.mark.parametrize("cls", SEARCHED)
def test_eight_combinations_of_settings_may_be_searched_and_the_papers_is_one(cls):
    trials, paper = cls.trials(), dataclasses.asdict(cls.Config())
    assert len(trials) == 8 and all(trials.count(trial) == 1 for trial in trials)
    assert {name: paper[name] for name in cls.tunes} in trials
    choices = {field.name: field.metadata.get("choices") for field in dataclasses.fields(cls.Config)}
    for trial in trials:
        assert dataclasses.asdict(cls.Config(**trial)).items() >= trial.items()
        for name, value in trial.items():
            assert type(value) is type(paper[name]) and value in (choices[name] or [value])


@pytest.mark.parametrize(("cls", "space", "name", "word"), SETTINGS)
def test_every_choice_and_switch_trains_and_acts(cls, space, name, word, make_spec, make_batch, make_data, tiny, look):
    algorithm = cls(make_spec(space), cls.Config(**{**tiny(cls), name: word}), SEEDS)
    algorithm.prepare(make_data(algorithm.spec))
    for draw in range(2):
        batch = make_batch(algorithm.spec, SEEDS, draw=draw, window=algorithm.config.window)
        losses = algorithm.update(batch)
    assert all(value.isfinite().all() and value.shape == (2,) for value in losses.values())
    obs, legal = look(algorithm.spec)
    actions, _ = algorithm.act(obs, legal)
    if legal is not None:
        assert legal.gather(-1, actions[..., None]).all()
