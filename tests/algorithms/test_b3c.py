import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.b3c import B3C, Config

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec, make_data):
    def make(**over):
        algorithm = B3C(make_spec("continuous"), Config(**{"hidden": (16, 16), **over}), SEEDS)
        algorithm.prepare(make_data(algorithm.spec))
        return algorithm

    return make


def test_the_bound_is_the_best_return_of_an_episode(build, make_data):
    algorithm = build()
    data = make_data(algorithm.spec)
    returns = data.rewards.mean(-1).view(8, 5).sum(1)
    assert_close(algorithm.best_return, returns.max())


@pytest.mark.parametrize("clip", [1.0, 0.5])
def test_bootstrapped_values_are_clipped_there_before_they_are_discounted(build, make_batch, clip):
    algorithm = build(clip=clip, discount=0.9)
    batch, seen = make_batch(algorithm.spec), []
    algorithm.best_return = torch.tensor(3.0)
    own = algorithm.team_value
    algorithm.team_value = lambda which, *args: (
        torch.full((2, 8), 1e6) if which else seen.append(own(which, *args)) or seen[-1]
    )
    loss = algorithm.critic_loss(batch)
    target = batch.rewards.mean(-1) + 0.9 * (1 - batch.done) * 3.0 * clip
    assert_close(loss, (seen[0] - target).square().mean(1))


def test_the_released_code_clips_nothing(build, make_batch, set_value):
    algorithm = build(**B3C.variants["released"])
    batch = make_batch(algorithm.spec)
    algorithm.best_return = torch.tensor(3.0)
    own = algorithm.team_value
    algorithm.team_value = lambda which, *args: torch.full((2, 8), 1e4) if which else own(which, *args)
    target = batch.rewards.mean(-1) + 0.99 * (1 - batch.done) * 1e4
    value = own("", batch.obs, batch.actions, batch.state)
    assert_close(algorithm.critic_loss(batch), (value - target).square().mean(1))


def test_a_free_mixer_fits_what_no_monotonic_one_can(make_spec):
    """The exclusive or of two agents' values."""

    def error(mixer):
        torch.manual_seed(0)
        net = B3C(make_spec("continuous", agents=2), Config(hidden=(16,), mixer=mixer), [0]).nets["mixer"]
        values = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])[None, None]
        target, state = torch.tensor([0.0, 1.0, 1.0, 0.0]), torch.ones(1, 4, 7)
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(300):
            loss = (net(values, state)[0, 0, :, 0] - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return loss.item()

    assert error("free") < 1e-3 < 0.05 < error("monotonic")


def test_the_free_mixer_written_out(build):
    """A layer of ELU units with the weights that two networks make of the state, neither made positive."""
    net = build().nets["mixer"]
    values, state = torch.randn(2, 4, 8, 3), torch.randn(2, 8, 7)
    first, bias, last, end = net.first(state), net.first_bias(state), net.last(state), net.last_bias(state)
    width = last.shape[-1]
    expected = end[:, None].expand(-1, 4, -1, -1)[..., 0].clone()
    for e in range(width):
        unit = sum(values[..., i] * first[:, None, :, i * width + e] for i in range(3)) + bias[:, None, :, e]
        expected += torch.where(unit > 0, unit, unit.exp() - 1) * last[:, None, :, e]
    assert_close(net(values, state), expected[..., None], rtol=1e-4, atol=1e-5)


def test_the_losses_are_the_critics_and_the_policys(build, make_batch):
    algorithm = build()
    batch = make_batch(algorithm.spec)
    losses = algorithm.losses(batch)
    assert losses.keys() == {"critic", "cloning", "q"}
    assert_close(losses["critic"], algorithm.critic_loss(batch))
    value = algorithm.team_value("", batch.obs, batch.actions, batch.state)
    assert_close(algorithm.mean_value(batch), value.detach().sum(1) / 8)


def test_all_agents_raise_the_teams_value_in_units_of_its_mean_magnitude(build, make_batch):
    algorithm = build(q_weight=2.0, bc_weight=0.5)
    batch = make_batch(algorithm.spec)
    actions = algorithm.act(batch.obs)[0]
    value = algorithm.team_value("", batch.obs, actions, batch.state)
    losses = algorithm.policy_losses(batch)
    assert_close(losses["q"], -2.0 * value.mean(1) / value.abs().mean(1))
    assert_close(losses["cloning"], 0.5 * (actions - batch.actions).square().mean((1, 2, 3)))
    weights = list(algorithm.nets["policy"].parameters())  # the magnitude is a number, without a gradient
    scale = value.detach().abs().mean(1)
    own = algorithm.team_value("", batch.obs, algorithm.nets["policy"](batch.obs).tanh(), batch.state)
    slopes = (torch.autograd.grad(q.sum(), weights, retain_graph=True) for q in (losses["q"], -2 * own.mean(1) / scale))
    for one, other in zip(*slopes):
        assert_close(one, other)
    sum(losses.values()).sum().backward()
    moved = {name for name, net in algorithm.nets.items() if any(p.grad is not None for p in net.parameters())}
    assert moved == {"policy"}
