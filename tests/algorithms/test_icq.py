import math

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.icq import ICQ, Config, batch_softmax

SEEDS = (3, 5)


@pytest.fixture(params=["discrete", "continuous"])
def space(request):
    return request.param


@pytest.fixture
def build(make_spec, space):
    def make(**over):
        return ICQ(make_spec(space), Config(**{"hidden": (16, 16), **over}), SEEDS)

    return make


def test_weights_are_normalised_over_the_batch_of_each_seed():
    weights = batch_softmax(10 * torch.randn(2, 64, 3))
    assert (weights > 0).all() and weights.std() > 1
    assert_close(weights.mean(1), torch.ones(2, 3))
    assert_close(batch_softmax(torch.zeros(2, 8)), torch.ones(2, 8))


def test_agents_shares_sum_to_one(build, make_batch):
    for mixer in ("state", "mean"):
        algorithm = build(mixer=mixer)
        shares = algorithm.weights("mixer", make_batch(algorithm.spec).state)
        assert (shares >= 0).all()
        assert_close(shares.sum(-1), torch.ones(2, 8), atol=1e-5, rtol=0)


def test_the_target_is_the_datas_next_value_by_its_share_of_the_batch(build, make_batch):
    algorithm = build(value_beta=2.0, discount=0.9)
    batch, nets = make_batch(algorithm.spec, size=16), algorithm.nets
    with torch.no_grad():
        for name in ("target_critic", "target_mixer"):
            for parameter in nets[name].parameters():
                parameter.normal_()
    for s in range(2):
        following = []
        shares = algorithm.weights("target_mixer", batch.next_state)
        values = algorithm.values("target_critic", batch.next_obs, batch.next_actions).mean(1)
        following = (shares * values).sum(-1)[s].tolist()
        odds = torch.tensor(following).div(2.0).exp()
        odds = (16 * odds / odds.sum()).tolist()
        team = algorithm.weights("mixer", batch.state)[:, None] * algorithm.values("critic", batch.obs, batch.actions)
        team, loss = team.sum(-1)[s], 0.0
        for b in range(16):
            y = batch.rewards[s, b].mean() + 0.9 * (1 - batch.done[s, b]) * odds[b] * following[b]
            loss += sum((team[k, b] - y) ** 2 for k in range(2)) / 16
        got = algorithm.losses(batch)["critic"][s]
        assert_close(got.detach(), torch.as_tensor(loss).detach(), rtol=1e-4, atol=1e-4)


def test_good_actions_of_the_data_are_cloned_more_than_others(build, make_batch, space):
    """Two actions are equally frequent and one pays: the policy takes that one."""

    def share(beta):
        algorithm = build(policy_beta=beta, learning_rate=1e-2, discount=0.0)
        for draw in range(150):
            batch = make_batch(algorithm.spec, size=64, draw=draw)
            pays = torch.rand(batch.rewards.shape, generator=torch.Generator().manual_seed(draw)) < 0.5
            if space == "discrete":
                free = torch.ones_like(batch.legal)
                batch = batch._replace(actions=pays.long(), legal=free, next_legal=free)
            else:
                batch = batch._replace(actions=(pays.float() - 0.5)[..., None].expand_as(batch.actions))
            algorithm.update(batch._replace(rewards=pays.float()))
        actions, _ = algorithm.act(make_batch(algorithm.spec, size=64, draw=999).obs)
        return (actions == 1 if space == "discrete" else actions > 0.1).float().mean()

    assert share(0.1) > 0.95


def test_the_policys_loss_is_weighted_likelihood(make_spec, make_batch):
    algorithm = ICQ(make_spec(), Config(hidden=(16, 16), policy_beta=0.5), SEEDS)
    batch, nets = make_batch(algorithm.spec, size=16), algorithm.nets
    with torch.no_grad():
        logits = nets["policy"](batch.obs).masked_fill(~batch.legal, -torch.inf)
        policy, q = logits.softmax(-1), nets["critic"](batch.obs).mean(1)
        chosen = q.gather(-1, batch.actions[..., None])[..., 0]
        advantage = chosen - (policy * q).sum(-1)
        weight = 16 * (advantage / 0.5).softmax(1)
        log_density = policy.gather(-1, batch.actions[..., None])[..., 0].log()
        expected = -(algorithm.weights("mixer", batch.state) * weight * log_density).sum(-1).mean(1)
    assert_close(algorithm.losses(batch)["policy"].detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [16, 2])
def test_lambda_returns_follow_the_datas_episode(build, make_data, steps):
    """By hand: G_k = r_k + g ((1 - l) V_k+1 + l G_k+1), without V at a true end, and V alone where it is cut."""
    algorithm = build(td_lambda=0.75, lambda_steps=steps, discount=0.9, value_beta=1e9)  # all weights are one
    data = make_data(algorithm.spec, episodes=3, length=5)
    data = data._replace(done=data.done * (torch.arange(15) < 10))  # the last episode ends by the clock
    algorithm.prepare(data)
    shares = algorithm.weights("target_mixer", data.state[None].expand(2, -1, -1))
    with torch.no_grad():
        returns = algorithm.lambda_return(torch.arange(15).expand(2, -1))
        for k in range(15):
            last = min(k // 5 * 5 + 4, k + steps - 1)
            total = 0.0
            for here in range(last, k - 1, -1):
                row, after = data.rows[here] + 1, here + (not data.last[here])
                obs, actions = (x[None, None].expand(2, 1, *x.shape) for x in (data.obs[row], data.actions[after]))
                q = algorithm.values("target_critic", obs, actions).mean(1)[:, 0]
                value = (shares[:, row] * q).sum(-1)
                value = value if here == last else 0.25 * value + 0.75 * total
                total = data.rewards[here].mean() + 0.9 * (1 - data.done[here]) * value
            assert_close(returns[:, k], total, rtol=1e-4, atol=1e-4)


def test_released_targets_are_copied_now_and_then(build, make_batch, make_data):
    algorithm = build(**{k: v for k, v in ICQ.variants["released"].items() if k != "hidden"} | {"target_period": 2})
    algorithm.prepare(make_data(algorithm.spec))
    nets = algorithm.nets
    for update in range(1, 5):
        before = [p.clone() for p in nets["target_critic"].parameters()]
        algorithm.update(make_batch(algorithm.spec, draw=update))
        source = before if update % 2 else list(nets["critic"].parameters())
        assert all(map(torch.equal, nets["target_critic"].parameters(), source))


def test_the_gaussian_policys_loss_is_weighted_likelihood_in_units_of_the_value(make_spec, make_batch):
    """A normal around the squashed mean; the advantage over the twins' mean at the policy's own action."""
    algorithm = ICQ(make_spec("continuous"), Config(hidden=(16, 16), policy_beta=0.5), SEEDS)
    batch, nets = make_batch(algorithm.spec, size=16), algorithm.nets
    with torch.no_grad():
        mean = nets["policy"](batch.obs).tanh()
        q, own = (nets["critic"](batch.obs, actions)[..., 0].mean(1) for actions in (batch.actions, mean))
        weight = 16 * ((q - own) / (0.5 * q.abs().mean((1, 2), keepdim=True))).softmax(1)
        log_density = torch.distributions.Normal(mean, math.exp(-1)).log_prob(batch.actions).sum(-1)
        expected = -(algorithm.weights("mixer", batch.state) * weight * log_density).sum(-1).mean(1)
    assert_close(algorithm.losses(batch)["policy"].detach(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(algorithm.act(batch.obs)[0], mean)


def test_the_temperatures_unit_is_the_reward_or_the_mean_magnitude(make_spec):
    q = torch.randn(2, 8, 3)
    for space, choice, magnitude in (
        ("discrete", "by_space", False),
        ("continuous", "by_space", True),
        ("discrete", "value", True),
        ("continuous", "reward", False),
    ):
        unit = ICQ(make_spec(space), Config(hidden=(16,), beta_unit=choice), SEEDS).unit(q)
        expected = q.abs().mean((1, 2)) if magnitude else torch.ones(2)
        assert_close(torch.as_tensor(unit).flatten().expand(2), expected)


def test_an_equal_mixer_gives_every_agent_its_share(build):
    assert_close(build(mixer="mean").weights("mixer", torch.randn(2, 8, 7)), torch.full((2, 8, 3), 1 / 3))


def test_the_teams_value_is_mixed_by_the_agents_shares(build, make_batch):
    algorithm = build()
    batch = make_batch(algorithm.spec)
    with torch.no_grad():
        values = algorithm.values("critic", batch.obs, batch.actions).mean(1)
        expected = (algorithm.weights("mixer", batch.state) * values).sum(-1).mean(1)
    assert_close(algorithm.mean_value(batch), expected)


def test_critics_and_mixer_learn_at_their_own_rate_if_they_have_one(build):
    fast, slow = Config().learning_rate, 1e-5
    assert set(build().learning_rates().values()) == {fast}
    assert build(critic_learning_rate=slow).learning_rates() == {"critic": slow, "mixer": slow}


def test_targets_follow_slowly_without_a_period(build, make_batch):
    algorithm = build(polyak=0.1, learning_rate=1e-2)
    before = [p.clone() for p in algorithm.nets["target_critic"].parameters()]
    algorithm.update(make_batch(algorithm.spec))
    moved = zip(before, algorithm.nets["target_critic"].parameters(), algorithm.nets["critic"].parameters())
    for old, new, now in moved:
        assert_close(new, torch.lerp(old, now, 0.1))


def test_the_policys_weights_are_constants_to_its_gradient(build, make_batch):
    """Only the likelihood moves the policy, and the policy's loss moves nothing else."""
    algorithm = build(policy_beta=0.5)
    batch = make_batch(algorithm.spec)
    parameters = [p for name, net in algorithm.nets.items() if "target" not in name for p in net.parameters()]
    loss = algorithm.losses(batch)["policy"].sum()
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    own = [p for name in ("policy", "log_std") if name in algorithm.nets for p in algorithm.nets[name].parameters()]
    assert all((g is not None) == any(p is q for q in own) for p, g in zip(parameters, grads))
    out = algorithm.nets["policy"](batch.obs)
    if algorithm.spec.discrete:
        density = out.masked_fill(~batch.legal, -torch.inf).log_softmax(-1)
        density = density.gather(-1, batch.actions[..., None])[..., 0]
    else:
        law = torch.distributions.Normal(out.tanh(), algorithm.nets.get_parameter("log_std.0").exp())
        density = law.log_prob(batch.actions).sum(-1)
    with torch.no_grad():
        q, worth = algorithm.values("critic", batch.obs, batch.actions).mean(1), algorithm.nets["critic"]
        if algorithm.spec.discrete:
            likely = out.masked_fill(~batch.legal, -torch.inf).softmax(-1)
            expected, unit = (likely * worth(batch.obs).mean(1)).sum(-1), 1.0
        else:
            expected, unit = worth(batch.obs, out.tanh())[..., 0].mean(1), q.abs().mean((1, 2), keepdim=True)
        weight = algorithm.weights("mixer", batch.state) * 8 * ((q - expected) / (0.5 * unit)).softmax(1)
    found = [g for g in grads if g is not None]
    for g, h in zip(found, torch.autograd.grad(-(weight * density).sum(-1).mean(1).sum(), own), strict=True):
        assert_close(g, h, rtol=1e-4, atol=1e-5)
