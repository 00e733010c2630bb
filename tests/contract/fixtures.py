"""What the tests of every method share: its cases (method, variant, kind of actions), and small tasks and batches."""

import dataclasses
import io

import pytest
import torch

from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import Batch, Data, TaskSpec

SEEDS = (3, 5)
CASES = [
    pytest.param((cls, variant, space), id=f"{cls.name}-{variant}-{space}")
    for cls in registry().values()
    for variant in ("paper", *(v for v in cls.variant_names() if v != "paper"))
    for space in sorted(cls.actions)
]


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def make_spec():
    def make(space="discrete", agents=3, obs=5, state=7, actions=4):
        return TaskSpec(agents, obs, state, actions, space == "discrete")

    return make


def _transitions(spec, seed, size, draw):
    """Transitions of one seed, determined by the arguments: a Batch without S."""
    g = torch.Generator().manual_seed(1000 * seed + draw)
    obs, next_obs = torch.randn(2, size, spec.agents, spec.obs, generator=g)
    state, next_state = torch.randn(2, size, spec.state, generator=g)
    rewards = torch.randn(size, spec.agents, generator=g)
    number = (7 * torch.arange(size) + seed + draw) % 40
    done = (torch.rand(size, generator=g) < 0.3).float()
    if not spec.discrete:
        actions = 2 * torch.rand(size, spec.agents, spec.actions, generator=g) - 1
        next_actions = 2 * torch.rand(size, spec.agents, spec.actions, generator=g) - 1
        return Batch(obs, actions, rewards, next_obs, done, None, None, state, next_state, next_actions, number)
    actions = torch.randint(spec.actions, (size, spec.agents), generator=g)
    legal, next_legal = torch.rand(2, size, spec.agents, spec.actions, generator=g) < 0.6
    legal.scatter_(-1, actions[..., None], True)
    next_legal[..., -1] |= ~next_legal.any(-1)
    actions[0], legal[0], next_legal[0] = 0, False, False  # a dead team: only action 0 is legal
    legal[0, :, 0] = next_legal[0, :, 0] = True
    odds = torch.rand(next_legal.shape, generator=g) * next_legal
    return Batch(obs, actions, rewards, next_obs, done, legal, next_legal, state, next_state, odds.argmax(-1), number)


@pytest.fixture(scope="session")
def make_batch():
    """Makes batches: the same transitions for the same seed in any batch, with windows around them if `window`."""

    def make(spec, seeds=(3, 5), size=8, draw=0, window=None):
        rows = [_transitions(spec, seed, size, draw) for seed in seeds]
        batch = Batch(*(None if column[0] is None else torch.stack(column) for column in zip(*rows)))
        return batch if window is None else batch._replace(window=_around(batch, window))

    return make


def _around(batch, window):
    """Windows that drift towards each transition's next observation: [S,B,T,I,O]."""
    steps = torch.arange(-window.history, window.horizon)[:, None, None]
    return batch.obs[:, :, None] + steps * (batch.next_obs - batch.obs)[:, :, None]


@pytest.fixture(scope="session")
def make_data():
    """Makes a dataset of `episodes` with `length` transitions each."""

    def make(spec, episodes=8, length=5):
        g = torch.Generator().manual_seed(episodes)
        count = episodes * length
        number = torch.arange(count)
        per_agent = (spec.agents, spec.actions)
        actions = 2 * torch.rand(count, *per_agent, generator=g) - 1
        legal = torch.ones(count + episodes, *per_agent, dtype=torch.bool) if spec.discrete else None
        last = number % length == length - 1
        return Data(
            obs=torch.randn(count + episodes, spec.agents, spec.obs, generator=g),
            state=torch.randn(count + episodes, spec.state, generator=g),
            legal=legal,
            actions=torch.randint(spec.actions, (count, spec.agents), generator=g) if spec.discrete else actions,
            rewards=torch.randn(count, spec.agents, generator=g),
            done=last.float(),
            last=last,
            rows=number + number // length,
        )

    return make


def _tiny(cls):
    return {f.name: f.metadata["tiny"] for f in dataclasses.fields(cls.Config) if "tiny" in f.metadata}


def _settings(cls, variant, space):
    """The settings of a variant, with every size small, and short windows unless the variant sets them."""
    short = {name: 4 for name in ("history", "horizon") if name in {f.name for f in dataclasses.fields(cls.Config)}}
    return {**short, **cls.variant(variant, space), **_tiny(cls)}


@pytest.fixture(scope="session")
def tiny():
    """The smallest sizes of a method: class -> settings."""
    return _tiny


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def spec(case, make_spec):
    return make_spec(case[2])


@pytest.fixture
def build(case, spec, make_data):
    """Makes the method of the case, small."""
    cls, variant, space = case

    def make(seeds=SEEDS, play="own", **over):
        algorithm = cls(spec, cls.Config(**{**_settings(cls, variant, space), **over}), seeds)
        algorithm.play = play
        algorithm.prepare(make_data(spec))
        return algorithm

    return make


@pytest.fixture
def batch(case, spec, make_batch):
    """Makes batches: the same transitions for the same seed in any batch."""
    cls, variant, space = case
    window = cls.Config(**_settings(cls, variant, space)).window

    def make(draw=0, seeds=SEEDS):
        return make_batch(spec, seeds, draw=draw, window=window)

    return make


@pytest.fixture
def views(spec, look):
    """Observations of S seeds in E episodes: obs [S,E,I,O], legal [S,E,I,A] or None."""
    return look(spec)


@pytest.fixture(scope="session")
def look():
    """Makes observations of S seeds in E episodes: obs [S,E,I,O], legal [S,E,I,A] or None."""

    def make(spec, seeds=2, episodes=24):
        g = torch.Generator().manual_seed(1)
        obs = 2 * torch.randn(seeds, episodes, spec.agents, spec.obs, generator=g)
        legal = torch.rand(seeds, episodes, spec.agents, spec.actions, generator=g) < 0.5
        legal[..., 1] |= ~legal.any(-1)
        return obs, legal if spec.discrete else None

    return make


@pytest.fixture(scope="session")
def through_disk():
    """Saves and loads a state."""

    def save_and_load(state):
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        return torch.load(file, weights_only=True)

    return save_and_load


@pytest.fixture(scope="session")
def assert_same():
    """Asserts that two states are the same, bit for bit."""

    def compare(one, other):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name

    return compare


@pytest.fixture(scope="session")
def train():
    """Updates with each batch and returns the method."""

    def update(algorithm, batches):
        for each in batches:
            algorithm.update(each)
        return algorithm

    return update
