"""Flow matching, discrete actions as points, and the method that is nothing else: Flow BC."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from offmarl.algorithms.flow_bc import Config, FlowBC
from offmarl.algorithms.parts.flow import decode, encode, euler, flow_matching_loss, masked, to_actions, to_points
from offmarl.algorithms.parts.nets import MLP
from offmarl.algorithms.parts.streams import SeedStreams

numbers = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@st.composite
def scores_and_legal(draw):
    """Any finite scores of up to six actions, of which at least one is legal."""
    rows, count = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    legal = st.lists(st.booleans(), min_size=count, max_size=count).filter(any)
    scores = [draw(st.lists(numbers, min_size=count, max_size=count)) for _ in range(rows)]
    return torch.tensor(scores), torch.tensor([draw(legal) for _ in range(rows)])


# The loss


def test_the_exact_field_has_no_loss():
    g = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 2, 64, 3, 4, generator=g, dtype=torch.float64)
    time = 0.99 * torch.rand(2, 64, 3, 1, generator=g, dtype=torch.float64)
    assert_close(flow_matching_loss(lambda x, t: target - noise, target, noise, time).max().item(), 0.0)
    # Towards each point, from wherever the path has led so far.
    loss = flow_matching_loss(lambda x, t: (target - x) / (1 - t), target, noise, time)
    assert loss.shape == (2,) and loss.max() < 1e-20


def test_a_constant_error_costs_its_mean_square_in_each_seed():
    target, noise, time = torch.randn(2, 64, 3, 4), torch.randn(2, 64, 3, 4), torch.rand(2, 64, 3, 1)
    error = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.5, 0.5, 0.5, 0.5]])  # of each seed, in each coordinate
    loss = flow_matching_loss(lambda x, t: target - noise + error[:, None, None], target, noise, time)
    assert_close(loss, torch.tensor([14 / 4, 0.25]))


def test_the_path_is_straight_from_noise_to_target():
    target, noise, time = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4), torch.rand(2, 5, 3, 1)
    seen = []

    def field(x, t):
        seen.append((x, t))
        return x

    flow_matching_loss(field, target, noise, time)
    ((x, t),) = seen
    assert torch.equal(t, time)
    assert_close(x, (1 - time) * noise + time * target)
    for end, place in ((0.0, noise), (1.0, target)):
        flow_matching_loss(field, target, noise, torch.full_like(time, end))
        assert_close(seen[-1][0], place)


# The integration


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_euler_is_exact_for_a_constant_field(steps):
    noise, speed = torch.randn(2, 2, 5, 3, 4, dtype=torch.float64)
    assert_close(euler(lambda x, t: speed, noise, steps), noise + speed)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_euler_compounds_a_linear_field(steps):
    noise = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    assert_close(euler(lambda x, t: x, noise, steps), (1 + 1 / steps) ** steps * noise)
    assert_close(euler(lambda x, t: -x, noise, steps), (1 - 1 / steps) ** steps * noise)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_euler_asks_at_the_start_of_every_step(steps):
    noise, times = torch.randn(2, 5, 3, 4), []

    def field(x, t):
        assert t.shape == (2, 5, 3, 1)
        times.append(t.unique().item())
        return t.expand_as(x)

    out = euler(field, noise, steps)
    assert_close(torch.tensor(times), torch.arange(steps) / steps)
    assert_close(out, noise + (steps - 1) / (2 * steps))


def test_euler_leaves_the_noise_alone():
    noise = torch.randn(2, 5, 3, 4)
    kept = noise.clone()
    euler(lambda x, t: x, noise, 3)
    assert torch.equal(noise, kept)


def test_a_trained_flow_reproduces_both_modes_in_their_shares():
    g, share = torch.Generator().manual_seed(0), 0.7
    net = MLP(SeedStreams([0], "initialisation"), 2, (32, 32), 1)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)

    def field(x, t):
        return net(torch.cat([x, t], -1))

    for _ in range(500):
        target = torch.where(torch.rand(1, 256, 1, generator=g) < share, 2.0, -2.0)
        noise, time = torch.randn(1, 256, 1, generator=g), torch.rand(1, 256, 1, generator=g)
        optimiser.zero_grad()
        flow_matching_loss(field, target, noise, time).sum().backward()
        optimiser.step()
    with torch.no_grad():
        x = euler(field, torch.randn(1, 4000, 1, generator=g), 20)
    assert ((x.abs() - 2).abs() < 0.5).float().mean() > 0.9
    assert abs((x > 0).float().mean() - share) < 0.06


# Discrete actions


@given(st.integers(1, 8), st.floats(0.1, 10), st.data())
@settings(deadline=None)
def test_decode_returns_what_encode_was_given(count, scale, data):
    actions = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6)))
    points = encode(actions, count, scale)
    assert points.shape == (*actions.shape, count) and points.dtype == torch.float32
    assert_close(points.norm(dim=-1), torch.full(actions.shape, scale))
    assert torch.equal(decode(points, None), actions)


@given(scores_and_legal())
@settings(deadline=None)
def test_decode_never_takes_an_illegal_action(drawn):
    scores, legal = drawn
    action = decode(scores, legal)
    assert legal.gather(-1, action[:, None]).all()


@given(scores_and_legal())
@settings(deadline=None)
def test_decode_takes_the_best_of_the_legal_actions(drawn):
    scores, legal = drawn
    best = [max(s for s, allowed in zip(*row) if allowed) for row in zip(scores.tolist(), legal.tolist())]
    assert scores.gather(-1, decode(scores, legal)[:, None])[:, 0].tolist() == best


@given(scores_and_legal())
@settings(deadline=None)
def test_masking_leaves_legal_scores_and_gives_illegal_ones_no_weight(drawn):
    scores, legal = drawn
    out = masked(scores, legal)
    assert torch.equal(out[legal], scores[legal])
    weights = out.softmax(-1)
    assert (weights[~legal] == 0).all()
    assert_close(weights.sum(-1), torch.ones(len(scores)))


def test_without_a_mask_every_action_is_within_reach():
    scores = torch.tensor([[0.0, 2.0, 1.0]])
    assert masked(scores, None) is scores
    assert decode(scores, None).tolist() == [1]


def test_masked_scores_pass_gradients_to_legal_actions_only():
    scores = torch.randn(3, requires_grad=True)
    masked(scores, torch.tensor([True, False, True])).softmax(-1)[0].backward()
    assert scores.grad[1] == 0 and (scores.grad[[0, 2]] != 0).all()


def test_discrete_actions_become_points_and_points_legal_actions(make_spec):
    spec, actions, legal = make_spec(), torch.randint(4, (2, 8, 3)), torch.rand(2, 8, 3, 4) < 0.5
    assert torch.equal(to_points(spec, actions, 3.0), encode(actions, 4, 3.0))
    x = torch.randn(2, 8, 3, 4)
    for mask in (None, legal):
        assert torch.equal(to_actions(spec, x, mask), decode(x, mask))


def test_continuous_actions_are_points_and_points_are_clipped(make_spec):
    spec, actions = make_spec("continuous"), 2 * torch.rand(2, 8, 3, 4) - 1
    assert torch.equal(to_points(spec, actions, 3.0), 3.0 * actions)
    assert to_actions(spec, torch.tensor([-3.0, -0.5, 0.25, 9.0]), None).tolist() == [-1.0, -0.5, 0.25, 1.0]
    assert torch.allclose(to_actions(spec, to_points(spec, actions, 3.0), None, 3.0), actions)


# Flow BC


@pytest.fixture
def build(make_spec):
    def make(cls=FlowBC, space="discrete", **over):
        return cls(make_spec(space), Config(**{"hidden": (16, 16), **over}), (3, 5))

    return make


def test_flow_bc_learns_actions_from_their_own_observations(build, make_batch):
    spec = build().spec
    batch, other = make_batch(spec), make_batch(spec, draw=1)

    def loss(each):
        return build().losses(each)["flow"]

    assert torch.equal(loss(batch), loss(other._replace(obs=batch.obs, actions=batch.actions)))
    assert (loss(batch) != loss(batch._replace(obs=other.obs))).all()
    assert (loss(batch) != loss(batch._replace(actions=other.actions))).all()


def test_flow_bc_gives_every_agent_a_time_of_its_own(build, make_batch):
    times = []

    class Watched(FlowBC):
        def field(self, obs):
            inner = super().field(obs)

            def watch(x, t):
                times.append(t)
                return inner(x, t)

            return watch

    algorithm = build(Watched)
    algorithm.losses(make_batch(algorithm.spec, size=64))
    (time,) = times
    assert time.shape == (2, 64, 3, 1) and time.unique().numel() == 2 * 64 * 3
    assert time.min() >= 0 and time.max() < 1


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_flow_bcs_loss_of_a_resting_field_follows_from_the_variances(build, make_batch, set_value, scale):
    algorithm = build(action_scale=scale)
    set_value(algorithm.nets["flow"], torch.zeros(2, 4))
    loss = algorithm.losses(make_batch(algorithm.spec, size=4000))["flow"]
    # The mean of |one-hot - noise|^2 over four coordinates.
    assert_close(loss.detach(), torch.full((2,), 1 + scale**2 / 4), rtol=0.03, atol=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_flow_bc_acts_by_the_whole_integration(build, steps):
    algorithm = build(flow_steps=steps)
    algorithm.play = "zero"
    obs, legal = torch.randn(2, 50, 3, 5), torch.rand(2, 50, 3, 4) < 0.5
    legal[..., 0] = True
    with torch.no_grad():
        x = torch.zeros(2, 50, 3, 4)
        for k in range(steps):
            x = x + algorithm.nets["flow"](obs, x, torch.full((2, 50, 3, 1), k / steps)) / steps
    assert torch.equal(algorithm.act(obs, legal)[0], x.masked_fill(~legal, -1e9).argmax(-1))
    assert torch.equal(algorithm.act(obs)[0], x.argmax(-1))


def test_flow_bc_reproduces_the_shares_of_a_mixed_behaviour(build, make_batch):
    algorithm, wanted = (
        build(hidden=(32, 32), learning_rate=5e-3, action_scale=4.0),
        torch.tensor([0.6, 0.3, 0.1, 0.0]),
    )
    for draw in range(300):
        batch = make_batch(algorithm.spec, size=64, draw=draw)
        actions = torch.multinomial(wanted, batch.actions.numel(), replacement=True).view(batch.actions.shape)
        algorithm.update(batch._replace(obs=torch.zeros_like(batch.obs), actions=actions))
    actions, _ = algorithm.act(torch.zeros(2, 2000, 3, 5))
    shares = torch.stack([(actions == a).float().mean(1) for a in range(4)], -1)  # [S, I, A]
    assert_close(shares, wanted.expand(2, 3, 4), rtol=0, atol=0.12)


def test_flow_bc_reproduces_both_modes_of_a_continuous_behaviour(build, make_batch):
    algorithm = build(space="continuous", hidden=(32, 32), learning_rate=5e-3)
    for draw in range(300):
        batch = make_batch(algorithm.spec, size=64, draw=draw)
        algorithm.update(batch._replace(obs=torch.zeros_like(batch.obs), actions=0.8 * batch.actions.sign()))
    actions, _ = algorithm.act(torch.zeros(2, 500, 3, 5))
    assert ((actions.abs() - 0.8).abs() < 0.3).float().mean() > 0.75
    assert ((actions > 0).float().mean((0, 1, 2)) - 0.5).abs().max() < 0.15
