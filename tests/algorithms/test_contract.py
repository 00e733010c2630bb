"""What every method promises. A new file in algorithms/ is tested here without a line written for it."""

import dataclasses
import io
import itertools
import json
import sys

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms import base, registry
from offmarl.algorithms.nets import AgentNet

SEEDS = (3, 5)
EPISODES = 64
CLASSES = [pytest.param(cls, id=name) for name, cls in registry().items()]
CASES = [
    pytest.param((cls, variant, space), id=f"{cls.name}-{variant}-{space}")
    for cls in registry().values()
    for variant in ("paper", *(v for v in cls.variants if v != "paper"))
    for space in sorted(cls.actions)
]


def tiny(cls):
    """Every size of a method as small as it goes."""
    return {f.name: f.metadata["tiny"] for f in dataclasses.fields(cls.Config) if "tiny" in f.metadata}


def settings_of(cls):
    """Every word of every choice and both sides of every switch."""
    for field in dataclasses.fields(cls.Config):
        words = field.metadata.get("choices", (True, False) if isinstance(field.default, bool) else ())
        yield from ((field.name, word) for word in words)


SETTINGS = [
    pytest.param(cls, space, name, word, id=f"{cls.name}-{space}-{name}={word}")
    for cls in registry().values()
    for space in sorted(cls.actions)
    for name, word in settings_of(cls)
]


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def spec(case, make_spec):
    return make_spec(case[2])


@pytest.fixture
def build(case, spec, make_data):
    """Makes the case's method, small."""
    cls, variant, _ = case

    def make(seeds=SEEDS, **over):
        algorithm = cls(spec, cls.Config(**{**cls.variants.get(variant, {}), **tiny(cls), **over}), seeds)
        algorithm.prepare(make_data(spec))
        return algorithm

    return make


@pytest.fixture
def batch(case, spec, make_batch):
    """The same transitions for the same seed, whoever shares the batch."""
    cls, variant, _ = case
    window = cls.Config(**{**cls.variants.get(variant, {}), **tiny(cls)}).window

    def make(draw=0, seeds=SEEDS):
        return make_batch(spec, seeds, draw=draw, window=window)

    return make


@pytest.fixture
def views(spec):
    """What S seeds see in E episodes: obs [S,E,I,O], legal [S,E,I,A] or None."""
    return look(spec)


def look(spec, seeds=2, episodes=EPISODES):
    g = torch.Generator().manual_seed(1)
    obs = 2 * torch.randn(seeds, episodes, spec.agents, spec.obs, generator=g)
    legal = torch.rand(seeds, episodes, spec.agents, spec.actions, generator=g) < 0.5
    legal[..., 1] |= ~legal.any(-1)
    return obs, legal if spec.discrete else None


def train(algorithm, batches):
    for each in batches:
        algorithm.update(each)
    return algorithm


def nets_of(algorithm):
    return {name: value.clone() for name, value in algorithm.nets.state_dict().items()}


def by_seed(algorithm, k):
    """Parameters of the k-th seed."""
    seeds = len(algorithm.seeds)
    return {n: p.detach().unflatten(0, (seeds, -1))[k].clone() for n, p in algorithm.nets.named_parameters()}


def assert_same(one, other):
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def through_disk(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def uses_noise(algorithm, obs, legal):
    """Whether acting draws from the acting streams."""
    before = algorithm.acting.state_dict()
    algorithm.act(obs, legal)
    return not all(map(torch.equal, before, algorithm.acting.state_dict()))


# The class and its settings


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
    assert dataclasses.is_dataclass(cls.Config) and issubclass(cls.Config, base.Config)
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
        assert changes.keys() <= fields.keys(), variant
        for name, value in changes.items():
            kinds = (int, float) if type(fields[name].default) is float else (type(fields[name].default),)
            assert type(value) in kinds, (variant, name)
            assert value in fields[name].metadata.get("choices", (value,)), (variant, name)


@pytest.mark.parametrize("cls", [pytest.param(cls, id=cls.name) for cls in registry().values()])
def test_the_default_settings_train_and_act(cls, make_spec, make_batch, make_data):
    for space in cls.actions:
        config = dataclasses.replace(cls.Config(), **{k: v for k, v in tiny(cls).items() if k.endswith("_steps")})
        algorithm = cls(make_spec(space), config, [0])  # of full width; how many steps it takes is a matter of time
        algorithm.prepare(make_data(algorithm.spec))
        losses = algorithm.update(make_batch(algorithm.spec, [0], window=config.window))
        assert all(value.isfinite().all() for value in losses.values())
        algorithm.act(*look(algorithm.spec, 1, 2))


@pytest.mark.parametrize(("cls", "space", "name", "word"), SETTINGS)
def test_every_choice_and_switch_trains_and_acts(cls, space, name, word, make_spec, make_batch, make_data):
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


# Training


def test_losses_are_finite_and_one_for_each_seed(build, batch):
    algorithm = build()
    for draw in range(3):
        losses = algorithm.update(batch(draw))
        assert losses
        for name, value in losses.items():
            assert value.shape == (len(SEEDS),) and value.isfinite().all() and not value.requires_grad, name


def test_every_trainable_tensor_of_every_seed_moves(build, batch):
    for share in (True, False):
        algorithm = build(share_parameters=share)
        before = [by_seed(algorithm, k) for k in range(len(SEEDS))]
        train(algorithm, [batch(draw) for draw in range(5)])
        trainable = {name for name, p in algorithm.nets.named_parameters() if p.requires_grad}
        assert trainable
        for k, old in enumerate(before):
            new = by_seed(algorithm, k)
            still = [name for name in trainable if torch.equal(old[name], new[name])]
            assert not still, f"seed {SEEDS[k]}, share_parameters={share}"


def test_the_optimiser_holds_the_trainable_parameters_and_nothing_else(build):
    algorithm = build()
    held = [id(p) for group in algorithm.optimiser.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in algorithm.nets.parameters() if p.requires_grad}


def test_the_optimiser_obeys_the_settings(build):
    for group in build(learning_rate=7e-4, adam_epsilon=3e-6).optimiser.param_groups:
        assert (group["lr"], group["eps"], group["weight_decay"]) == (7e-4, 3e-6, 0)


def test_the_learning_rate_falls_to_nothing_over_the_steps_it_is_given(build, batch):
    algorithm, rates = build(decay_steps=4, learning_rate=0.01), []
    for draw in range(6):
        before = [p.detach().clone() for p in algorithm.nets.parameters() if p.requires_grad]
        algorithm.update(batch(draw))
        rates.append(algorithm.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0, 0])
    after = [p for p in algorithm.nets.parameters() if p.requires_grad]
    assert all(torch.equal(p, q) for p, q in zip(before, after))


def test_no_gradient_is_longer_than_the_settings_allow(build, batch):
    loose, tight = build(max_grad_norm=0.0), build(max_grad_norm=1e-3)
    for algorithm in (loose, tight):
        algorithm.update(batch())
    for name, net in tight.nets.items():
        pairs = [
            (p.grad, q.grad) for p, q in zip(net.parameters(), loose.nets[name].parameters()) if p.grad is not None
        ]
        if pairs:
            short, long = (torch.cat([g.view(len(SEEDS), -1) for g in column], 1) for column in zip(*pairs))
            scale = (1e-3 / (long.norm(dim=1) + 1e-6)).clamp(max=1)
            assert_close(short, long * scale[:, None], rtol=1e-4, atol=1e-9)


def test_the_critics_largest_value_is_told_for_every_seed(build, batch):
    algorithm = build()
    metrics = algorithm.update(batch())
    assert (base.LARGEST_Q in metrics) == ("critic" in algorithm.nets)
    if "critic" in algorithm.nets:
        assert metrics[base.LARGEST_Q].shape == (len(SEEDS),) and (metrics[base.LARGEST_Q] > 0).all()


def test_target_networks_start_as_copies_and_get_no_gradient(build, batch):
    algorithm = build()
    for name, target in algorithm.nets.named_children():
        if name.startswith("target_"):
            source = dict(algorithm.nets[name.removeprefix("target_")].named_parameters())
            assert_same(dict(target.named_parameters()), source)
            assert not any(p.requires_grad for p in target.parameters())
    algorithm.update(batch())
    for name, parameter in algorithm.nets.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_an_update_leaves_its_batch_alone(build, batch):
    given, kept = batch(), batch()
    build().update(given)
    for one, other in zip(given, kept):
        assert one is other is None or torch.equal(one, other)


def test_same_seed_same_numbers(build, batch, views):
    one, other = (train(build(), [batch(draw) for draw in range(3)]) for _ in range(2))
    assert_same(nets_of(one), nets_of(other))
    assert torch.equal(one.act(*views)[0], other.act(*views)[0])


def test_different_seeds_start_differently(build):
    algorithm = build()
    one, other = (by_seed(algorithm, k) for k in range(2))
    weights = [name for name, value in one.items() if name.endswith("weight") and value.unique().numel() > 1]
    assert weights
    assert not any(torch.equal(one[name], other[name]) for name in weights)


def test_a_seed_starts_the_same_in_any_company(build):
    together = build()
    for k, seed in enumerate(SEEDS):
        assert_same(together.seed_state(k), build([seed]).seed_state(0))


def test_a_seed_learns_the_same_in_any_company(build, batch):
    # One Adam for every variant: with a tiny epsilon it blows up the last bit of a vanishing gradient.
    over = {"adam_epsilon": 1e-5, "learning_rate": 3e-4}
    together = train(build(**over), [batch(draw) for draw in range(4)])
    start = build(**over)
    for k, seed in enumerate(SEEDS):
        alone = train(build([seed], **over), [batch(draw, [seed]) for draw in range(4)]).seed_state(0)
        for name, value in together.seed_state(k).items():
            assert_close(value, alone[name], rtol=1e-5, atol=2e-6, msg=lambda m, name=name: f"{name}: {m}")
        drift = [(v - start.seed_state(k)[n]).abs().max() for n, v in alone.items() if v.is_floating_point()]
        assert max(drift) > 5e-4  # the tolerance is small against what four updates change


def test_the_order_of_seeds_does_not_matter(build):
    one, other = build([3, 5, 8]), build([8, 3, 5])
    for k, j in enumerate((1, 2, 0)):
        assert_same(one.seed_state(k), other.seed_state(j))


def test_seeds_do_not_mix(build, batch):
    one, other = build(), build()
    for draw in range(3):
        mine, theirs = batch(draw), batch(draw + 100)
        swapped = [
            None if a is None else torch.stack([b[0], a[1]]) for a, b in zip(mine, theirs)
        ]  # another batch for the first seed, the same for the second
        one.update(mine)
        other.update(base.Batch(*swapped))
    assert_same(by_seed(one, 1), by_seed(other, 1))
    first, second = by_seed(one, 0), by_seed(other, 0)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_acting_does_not_disturb_training(build, batch, views):
    quiet, busy = build(), build()
    for draw in range(2):
        quiet.update(batch(draw))
        busy.act(*views)
        busy.update(batch(draw))
        busy.act(*views)
    assert_same(nets_of(quiet), nets_of(busy))


# Saving


@pytest.mark.parametrize("decay", [0, 5])
def test_save_load_continue_equals_uninterrupted(build, batch, views, decay):
    whole = train(build(decay_steps=decay), [batch(draw) for draw in range(2)])
    whole.act(*views)
    resumed = build(decay_steps=decay)
    resumed.load_state_dict(through_disk(whole.state_dict()))
    for draw in range(2, 5):
        losses, again = whole.update(batch(draw)), resumed.update(batch(draw))
        assert_same(losses, again)
        assert torch.equal(whole.act(*views)[0], resumed.act(*views)[0])
    assert_same(nets_of(whole), nets_of(resumed))
    for mine, its in ((whole.acting, resumed.acting), (whole.streams, resumed.streams)):
        assert all(map(torch.equal, mine.state_dict(), its.state_dict()))


def test_one_seed_of_many_acts_alone_as_it_did_in_company(build, batch, views):
    together = train(build(eval_noise="zero"), [batch(draw) for draw in range(2)])
    obs, legal = views
    actions, _ = together.act(obs, legal)
    for k, seed in enumerate(SEEDS):
        alone = build([seed], eval_noise="zero")
        alone.load_nets(through_disk(together.seed_state(k)))
        assert_same(alone.seed_state(0), together.seed_state(k))
        again, _ = alone.act(obs[k : k + 1], None if legal is None else legal[k : k + 1])
        assert_close(again[0], actions[k], rtol=0, atol=1e-4)  # round-off, which a chain of calls enlarges
    assert not torch.equal(*(together.act(obs[:1].expand_as(obs), None)[0]))  # the seeds differ


def test_parameters_counts_one_seed(build):
    many, one = build(), build([3])
    assert many.parameters() == one.parameters() > 0
    assert one.parameters() == sum(p.numel() for group in one.optimiser.param_groups for p in group["params"])


# Acting


def test_actions_have_the_shape_and_type_of_the_task(build, spec):
    algorithm = build()
    for episodes in (1, 4):
        obs, legal = look(spec, episodes=episodes)
        actions, _ = algorithm.act(obs, legal)
        if spec.discrete:
            assert actions.shape == (2, episodes, spec.agents) and actions.dtype == torch.int64
        else:
            assert actions.shape == (2, episodes, spec.agents, spec.actions) and actions.dtype == torch.float32
            assert actions.abs().max() <= 1.0
        assert not actions.requires_grad


def test_only_legal_actions_are_taken(build, batch, spec, views):
    algorithm = train(build(), [batch(draw) for draw in range(2)])
    obs, legal = views
    free, _ = algorithm.act(100 * obs, None)
    if not spec.discrete:
        assert free.abs().max() <= 1.0
        return
    assert free.min() >= 0 and free.max() < spec.actions
    actions, _ = algorithm.act(100 * obs, legal)
    assert legal.gather(-1, actions[..., None]).all()
    assert not legal.gather(-1, free[..., None]).all()  # the mask did bind
    for only in range(spec.actions):  # as for a fallen unit
        single = torch.zeros_like(legal)
        single[..., only] = True
        assert (algorithm.act(100 * obs, single)[0] == only).all()


def test_acting_depends_on_the_agents_own_observation(build, views):
    algorithm = build(eval_noise="zero")
    obs, _ = views
    actions, other = (algorithm.act(x, None)[0] for x in (obs, obs.flip(1)))
    assert (actions != other).flatten(3 if actions.ndim == 4 else 2).any(-1).float().mean() > 0.2


@pytest.mark.parametrize("noise", ["zero", "fixed"])
def test_acting_needs_other_agents_observations_only_where_execution_is_centralised(case, build, spec, views, noise):
    algorithm = build(eval_noise=noise)
    with torch.no_grad():  # what joins the agents may be closed by initialisation and open only by training
        for parameter in algorithm.nets.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    obs, legal = views
    actions, _ = algorithm.act(obs, legal)
    changed = dict.fromkeys(range(spec.agents), False)
    for j in range(spec.agents):
        altered, mask = obs.clone(), None if legal is None else legal.clone()
        altered[:, :, j] = -3 * obs[:, :, j].flip(1)
        if mask is not None:
            mask[:, :, j] = legal[:, :, j].flip(1)
        again, _ = algorithm.act(altered, mask)
        for i in set(changed) - {j}:
            changed[i] |= not torch.equal(actions[:, :, i], again[:, :, i])
    centralised = case[0].execution == "centralised"
    assert changed == dict.fromkeys(range(spec.agents), centralised)


def test_agents_differ_with_shared_parameters_and_without(build, spec, views):
    obs = views[0][:, :, :1].expand(-1, -1, spec.agents, -1)  # all see the same
    for share in (True, False):
        actions, _ = build(share_parameters=share, eval_noise="zero").act(obs, None)
        for i, j in itertools.combinations(range(spec.agents), 2):
            assert not torch.equal(actions[:, :, i], actions[:, :, j]), f"share_parameters={share}"


def test_agents_have_weights_of_their_own_without_sharing(build):
    shared, apart = build(share_parameters=True), build(share_parameters=False)
    assert apart.parameters() > shared.parameters()
    for net in (m for m in apart.nets.modules() if isinstance(m, AgentNet)):
        assert not net.shared
        maps = net.mlp.layers[0].weight
        assert len(maps) == len(SEEDS) * net.copies * net.agents
        assert len({tuple(m.flatten().tolist()) for m in maps}) == len(maps)


def test_nfe_is_the_number_of_network_calls_of_one_decision(build, views):
    algorithm = build()
    calls = []
    for net in algorithm.nets.children():
        net.register_forward_hook(lambda *_: calls.append(1))
    algorithm.act(*views)
    assert len(calls) == algorithm.nfe() >= 1


@pytest.mark.parametrize("noise", ["zero", "fixed"])
def test_acting_repeats_itself_without_fresh_noise(build, views, noise):
    algorithm = build(eval_noise=noise)
    assert not uses_noise(algorithm, *views)
    assert torch.equal(algorithm.act(*views)[0], algorithm.act(*views)[0])


def test_fresh_noise_makes_the_difference_where_noise_is_used(build, views):
    algorithm = build(eval_noise="fresh")
    differs = not torch.equal(algorithm.act(*views)[0], algorithm.act(*views)[0])
    assert differs == uses_noise(algorithm, *views)
    same_place = not torch.equal(algorithm.act(*views)[0], build(eval_noise="zero").act(*views)[0])
    assert same_place == differs


def test_fixed_noise_is_one_draw_for_all_episodes(build, views):
    algorithm = build(eval_noise="fixed")
    noise = algorithm.acting_noise(4, 3, 2)
    assert noise.shape == (2, 4, 3, 2)
    assert (noise == noise[:, :1]).all() and noise[:, 0].unique().numel() == noise[:, 0].numel()
    assert torch.equal(noise[:, :2], algorithm.acting_noise(2, 3, 2))
    assert torch.equal(noise[1:], build([SEEDS[1]], eval_noise="fixed").acting_noise(4, 3, 2))
    obs, _ = views
    actions, _ = algorithm.act(obs[:, :1].expand_as(obs), None)
    assert (actions == actions[:, :1]).all()


def test_fresh_noise_is_standard_normal_and_a_seeds_own(build):
    algorithm = build(eval_noise="fresh")
    noise = algorithm.acting_noise(50, 40, 5)
    assert noise.mean((1, 2, 3)).abs().max() < 0.05 and (noise.std((1, 2, 3)) - 1).abs().max() < 0.05
    assert torch.equal(noise[1:], build([SEEDS[1]], eval_noise="fresh").acting_noise(50, 40, 5))
    assert not torch.equal(noise[0], noise[1])
    assert (algorithm.acting_noise(50, 40, 5) != noise).any()


# Random streams


def test_streams_depend_on_seed_and_purpose_alone():
    def draws(seeds, purpose):
        streams = base.SeedStreams(seeds, purpose)
        return torch.cat([streams.normal(4), streams.uniform(4), streams.integers(1000, 4)], 1)

    together = draws([0, 1, 7], "training")
    assert torch.equal(together, draws([0, 1, 7], "training"))
    assert torch.equal(together[2:], draws([7], "training"))
    assert len({tuple(row.tolist()) for row in [*together, *draws([0, 1, 7], "acting")]}) == 6


def test_initialisation_training_and_acting_draw_apart(build):
    one, other = build(), build()
    draws = [one.streams.normal(4), one.acting.normal(4), other.init_streams.normal(4)]
    fresh = base.SeedStreams(SEEDS, "initialisation").normal(4)
    assert len({tuple(row.tolist()) for each in [*draws, fresh] for row in each}) == 8


def test_streams_draw_what_they_say():
    streams = base.SeedStreams([0, 1], "test")
    uniform, integers = streams.uniform(4000), streams.integers(3, 4000)
    assert uniform.min() >= 0 and uniform.max() < 1 and (uniform.mean(1) - 0.5).abs().max() < 0.02
    for k in range(3):
        assert ((integers == k).float().mean(1) - 1 / 3).abs().max() < 0.03
    assert integers.min() == 0 and integers.max() == 2


def test_streams_continue_where_they_stood():
    streams, later = base.SeedStreams([0, 1], "test"), base.SeedStreams([5, 6], "other")
    streams.normal(3)
    later.load_state_dict(through_disk(streams.state_dict()))
    assert torch.equal(streams.normal(5), later.normal(5))
    with pytest.raises(ValueError):
        later.load_state_dict(base.SeedStreams([0], "test").state_dict())
