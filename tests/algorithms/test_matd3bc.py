import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.matd3bc import MATD3BC, Config

SEEDS = (3, 5)


@pytest.fixture
def build(make_spec):
    def make(agents=3, **over):
        return MATD3BC(make_spec("continuous", agents=agents), Config(**{"hidden": (16, 16), **over}), SEEDS)

    return make


def test_with_one_agent_it_is_td3_bc(build, make_batch):
    """The single-agent loss, written out."""
    algorithm = build(agents=1, target_noise=0.0, discount=0.9, alpha=2.5)
    batch = make_batch(algorithm.spec, size=16)
    nets = algorithm.nets
    with torch.no_grad():
        for name in ("target_critic", "target_policy"):
            for parameter in nets[name].parameters():
                parameter.normal_()
        next_q = nets["target_critic"](batch.next_obs, nets["target_policy"](batch.next_obs).tanh())[..., 0, 0].amin(1)
        y = batch.rewards[..., 0] + 0.9 * (1 - batch.done) * next_q
    q = nets["critic"](batch.obs, batch.actions)[..., 0, 0]
    critic = (q[:, 0] - y).pow(2).mean(1) + (q[:, 1] - y).pow(2).mean(1)
    actions = nets["policy"](batch.obs).tanh()
    value = nets["critic"](batch.obs, actions)[:, 0, :, 0, 0]
    policy = -2.5 / value.abs().mean(1) * value.mean(1) + (actions - batch.actions).pow(2).mean((1, 2, 3))
    algorithm.updates = 1
    losses = algorithm.losses(batch)
    assert_close(losses["critic"], critic)
    assert_close(losses["cloning"] + losses["q"], policy)


@pytest.mark.parametrize("detached", [True, False])
def test_the_weight_of_the_q_term_is_a_constant_to_the_gradient(build, make_batch, detached):
    """Undetached, the gradient of Q / mean|Q| loses what only scales Q."""
    algorithm = build(detach_magnitude=detached)
    algorithm.updates = 1
    batch = make_batch(algorithm.spec)
    loss = algorithm.losses(batch)["q"]
    policy = list(algorithm.nets["policy"].parameters())
    gradient = torch.autograd.grad(loss.sum(), policy)
    actions = algorithm.nets["policy"](batch.obs).tanh()
    value = algorithm.nets["critic"](batch.obs, actions)[:, 0, ..., 0].mean(-1)
    plain = torch.autograd.grad((-2.5 * value.mean(1) / value.detach().abs().mean(1)).sum(), policy)
    assert all(torch.allclose(g, p, atol=1e-6) for g, p in zip(gradient, plain)) == detached


def test_the_policy_and_the_targets_move_in_every_second_update(build, make_batch):
    algorithm = build(learning_rate=1e-2)

    def weights(name):
        return torch.cat([p.detach().flatten() for p in algorithm.nets[name].parameters()])

    for update in range(1, 6):
        before = {name: weights(name) for name in algorithm.nets}
        algorithm.update(make_batch(algorithm.spec, draw=update))
        moved = {name for name in before if not torch.equal(before[name], weights(name))}
        assert moved == (set(algorithm.nets) if update % 2 else {"critic"})


def test_targets_are_smoothed_by_clipped_noise(build, make_batch):
    quiet, noisy, wild = (build(target_noise=n, target_clip=0.1) for n in (0.0, 1.0, 100.0))
    seen = []
    for algorithm in (quiet, noisy, wild):
        algorithm.nets["target_critic"].register_forward_hook(lambda net, inputs, out: seen.append(inputs[1]))
        algorithm.critic_loss(make_batch(algorithm.spec, size=64))
    centre, near, far = seen
    assert ((near - centre).abs() <= 0.1 + 1e-6).all() and (near - centre).std() > 0.03
    inside = far.abs() < 1
    assert inside.float().mean() > 0.5
    assert_close((far - centre)[inside].abs(), torch.full_like(far[inside], 0.1), atol=0.02, rtol=0)


def test_the_released_variant_has_neither_target_policy_nor_delay(build, make_batch):
    algorithm = build(**MATD3BC.variants["released"])
    assert "target_policy" not in algorithm.nets
    for draw in range(3):
        assert "q" in algorithm.update(make_batch(algorithm.spec, draw=draw))


def test_the_released_losses_written_out(build, make_batch):
    """No mixer, no tanh, the lesser twin, gamma .99: the loss of the authors' td3bc.py."""
    algorithm = build(**MATD3BC.variants["released"])
    batch, nets = make_batch(algorithm.spec, size=16), algorithm.nets
    with torch.no_grad():
        for name in ("policy", "target_critic"):
            for parameter in nets[name].parameters():
                parameter.normal_()
        next_q = nets["target_critic"](batch.next_obs, nets["policy"](batch.next_obs))[..., 0].amin(1)
        y = batch.rewards + 0.99 * (1 - batch.done)[..., None] * next_q
        q = nets["critic"](batch.obs, batch.actions)[..., 0]
        actions = nets["policy"](batch.obs)
        value = nets["critic"](batch.obs, actions)[..., 0].amin(1)
    assert actions.abs().max() > 1 and nets["policy"].mlp.norms is not None
    algorithm.updates = 1
    losses = algorithm.losses(batch)
    assert_close(losses["critic"], (q - y[:, None]).square().mean((2, 3)).sum(1))
    assert_close(losses["q"].detach(), -2.5 * value.mean((1, 2)) / value.abs().mean((1, 2)))
    assert_close(losses["cloning"].detach(), (actions - batch.actions).square().mean((1, 2, 3)))
    assert torch.equal(algorithm.act(batch.obs)[0], actions.clamp(-1, 1))


def test_alpha_trades_the_data_for_the_critic(build, make_batch):
    """With alpha 0 it clones; with the default it climbs a critic that likes actions near +1."""

    def mean_action(alpha):
        algorithm = build(alpha=alpha, learning_rate=3e-3, discount=0.0)
        for draw in range(200):
            batch = make_batch(algorithm.spec, size=64, draw=draw)
            actions = 0.5 * batch.actions
            algorithm.update(batch._replace(actions=actions, rewards=1 + actions.mean(-1)))
        return algorithm.act(make_batch(algorithm.spec, size=64, draw=999).obs)[0].mean()

    assert mean_action(0.0).abs() < 0.05 and mean_action(2.5) > 0.2


def test_with_a_delay_of_three_the_policy_moves_first_and_in_every_third_update(build, make_batch):
    algorithm = build(policy_delay=3)
    moved = ["q" in algorithm.update(make_batch(algorithm.spec, draw=draw)) for draw in range(7)]
    assert moved == [True, False, False, True, False, False, True]


def test_the_smoothed_action_is_the_targets_plus_the_cut_noise_within_the_bounds(build, make_batch):
    algorithm, seen = build(target_noise=0.5, target_clip=0.4), []
    batch, noise = make_batch(algorithm.spec), torch.randn(2, 8, 3, 4)
    algorithm.streams.normal = lambda *shape: noise
    with torch.no_grad():
        for parameter in algorithm.nets["target_policy"].parameters():
            parameter.normal_()
    algorithm.nets["target_critic"].register_forward_hook(lambda net, inputs, out: seen.append(inputs))
    algorithm.critic_loss(batch)
    actions = algorithm.nets["target_policy"](batch.next_obs).tanh()
    expected = (actions + (0.5 * noise).clamp(-0.4, 0.4)).clamp(-1, 1)
    assert_close(seen[0][1], expected)
    assert torch.equal(seen[0][0], batch.next_obs) and (expected == 1).any() and (expected == -1).any()
