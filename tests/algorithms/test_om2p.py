"""Mean flows against closed forms: for data N(0, sigma^2), z_t = (1 - t) a + t e has deviation s(t), a trajectory is
z(t) = c s(t), and the average velocity over [r, t] is u(z, r, t) = z (1 - s(r) / s(t)) / (t - r)."""

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.om2p import OM2P, Config

SIGMA = 0.4


def s(t):
    return ((1 - t) ** 2 * SIGMA**2 + t**2).sqrt()


def slope(t):
    return (t - (1 - t) * SIGMA**2) / s(t)


def exact(z, r, t):
    return z * (1 - s(r) / s(t)) / (t - r)


@pytest.fixture
def build(make_spec):
    def make(seeds=(3, 5), **over):
        return OM2P(make_spec("continuous"), Config(**{"hidden": (16, 16), **over}), seeds)

    return make


@pytest.fixture
def trajectory():
    """Points [200,1] of trajectories: c, r < t."""
    g = torch.Generator().manual_seed(0)
    c, draws = torch.randn(200, 1, generator=g), torch.rand(200, 2, generator=g)
    return c, draws[:, :1] * 0.4, 0.5 + draws[:, 1:] * 0.5


@pytest.mark.parametrize(("derivative", "tolerance"), [("jvp", 1e-4), ("fd", 1e-2)])
def test_the_identity_holds_for_the_exact_average_velocity(build, trajectory, derivative, tolerance):
    c, r, t = trajectory
    algorithm = build(derivative=derivative)
    rate = algorithm.rate(exact, lambda x: c * s(x), c * slope(t), r, t)
    assert_close(exact(c * s(t), r, t), c * slope(t) - (t - r) * rate, atol=tolerance, rtol=0)


def test_the_released_sign_breaks_the_identity(build, trajectory):
    c, r, t = trajectory
    rate = build(derivative="jvp").rate(exact, lambda x: c * s(x), c * slope(t), r, t)
    residual = exact(c * s(t), r, t) - (c * slope(t) + (t - r) * rate)
    assert residual.abs().max() > 0.5


@pytest.mark.parametrize("derivative", ["fd", "jvp"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_loss_rests_at_the_exact_average_velocity(build, make_batch, derivative, scale):
    """For normal data no change of the average velocity has a slope at the exact one, and at any other there is one."""
    algorithm = build(seeds=(0,), derivative=derivative, action_scale=scale)
    batch = make_batch(algorithm.spec, [0], size=1)
    batch = batch._replace(actions=SIGMA / scale * torch.randn(1, 100_000, 3, 4))

    def slopes(error):
        weights = torch.zeros(4, requires_grad=True)

        def velocity(z, r, t):
            t = torch.where((t - r).abs() < 1e-3, r + 1e-3, t)
            directions = torch.stack([z, t * z, r * z, (1 - t) * z.pow(3)])
            return exact(z, r, t) + error * z + torch.einsum("k,k...->...", weights, directions)

        algorithm.velocity = lambda obs: velocity
        return torch.autograd.grad(algorithm.flow_loss(batch).sum(), weights)[0]

    assert slopes(0.0).abs().max() < 0.05
    assert slopes(0.3).abs().min() > 0.1


@pytest.mark.parametrize("derivative", ["fd", "jvp"])
def test_the_released_loss_adds_where_the_identity_subtracts(build, make_batch, derivative):
    """For u = 2 z + t, from noise e at 0 to data a at 1: du/dt = 2 (a - e) + 1."""
    algorithm = build(convention="released", derivative=derivative, action_scale=2.0, fd_step=0.01)
    batch = make_batch(algorithm.spec)
    noise, r = torch.randn_like(batch.actions), torch.full_like(batch.actions[..., :1], 0.25)
    t = r + 0.5
    algorithm.streams.normal = lambda *shape: noise
    algorithm.times = lambda *shape: (r, t)
    algorithm.velocity = lambda obs: lambda z, r, t: 2 * z + t
    v = 2 * batch.actions - noise
    error = 2 * (noise + 0.75 * v) + 0.75 - (v + 0.5 * (2 * v + 1))
    assert_close(algorithm.flow_loss(batch), error.pow(2).mean((1, 2, 3)), rtol=1e-3, atol=1e-3)


def test_one_pass_of_the_exact_velocity_turns_noise_into_data(build):
    algorithm = build()
    algorithm.velocity = lambda obs: exact
    noise = torch.randn(2, 6, 3, 4)
    assert_close(algorithm.sample(torch.zeros(2, 6, 3, 5), noise), SIGMA * noise)


@pytest.mark.parametrize("convention", ["meanflow", "released"])
def test_actions_are_points_of_the_flow_at_a_scale(build, convention):
    """The loss moves the flow to scaled actions, and one pass gives them back."""
    algorithm, seen = build(action_scale=4.0, convention=convention, bc_weight=1.0), []
    noise = torch.randn(2, 6, 3, 4)
    algorithm.velocity = lambda obs: lambda z, r, t: seen.append(z) or torch.zeros_like(z)
    expected = noise / 4 if convention == "meanflow" else torch.zeros_like(noise)
    assert_close(algorithm.sample(torch.zeros(2, 6, 3, 5), noise), expected)


def test_the_finite_difference_is_within_one_percent_of_the_derivative(build, make_batch):
    fd, jvp = build(derivative="fd", hidden=(64, 64)), build(derivative="jvp", hidden=(64, 64))
    batch = make_batch(fd.spec, size=64)
    noise = torch.randn_like(batch.actions)
    r, t = fd.times(*batch.actions.shape[1:-1])
    t = t.clamp(min=0.01)

    def rate(algorithm):
        path = lambda x: torch.lerp(batch.actions, noise, x)  # noqa: E731
        return algorithm.rate(algorithm.velocity(batch.obs), path, noise - batch.actions, r, t)

    assert (rate(fd) - rate(jvp)).norm() / rate(jvp).norm() < 0.01


def test_the_released_step_vanishes_in_single_precision(build, make_batch):
    algorithm = build(fd_step=1e-12)
    batch = make_batch(algorithm.spec)
    t = torch.full_like(batch.actions[..., :1], 0.7)
    u = algorithm.velocity(batch.obs)
    rate = algorithm.rate(u, lambda x: torch.lerp(batch.actions, -batch.actions, x), batch.actions, 0 * t, t)
    assert (rate == 0).all()


def test_the_jacobian_of_the_batch_gives_the_same_derivative(build, make_batch):
    jvp, jacobian = build(derivative="jvp"), build(derivative="jacobian")
    batch = make_batch(jvp.spec, size=3)
    r, t = jvp.times(*batch.actions.shape[1:-1])
    args = (lambda x: batch.actions * (1 - x), batch.actions, r, t)
    assert_close(jvp.rate(jvp.velocity(batch.obs), *args), jacobian.rate(jacobian.velocity(batch.obs), *args))


def test_times_follow_their_law_and_uniform_is_a_case_of_it(build):
    r, t = build().times(20_000, 3)
    u = torch.linspace(0, 1, 100_001)
    density = torch.exp(-5 * u)
    mean = float((u * density).sum() / density.sum())
    assert_close(r.mean(), torch.tensor(mean), atol=5e-3, rtol=0)
    assert_close((1 - t).mean(), torch.tensor(mean), atol=5e-3, rtol=0)
    flat, _ = build(time_weights=(0.0,)).times(20_000, 3)
    assert_close(flat.mean(), torch.tensor(0.5), atol=5e-3, rtol=0)


def test_agents_learn_apart(build, make_batch):
    """Another agent's reward and observation leave an agent's critic target alone."""
    algorithm = build()
    batch = make_batch(algorithm.spec)
    altered = batch._replace(rewards=batch.rewards.clone(), next_obs=batch.next_obs.clone())
    altered.rewards[:, :, 2] += 5
    altered.next_obs[:, :, 2] += 5
    grads = []
    for each in (batch, altered):
        algorithm = build()
        algorithm.critic_loss(each).sum().backward()
        grads.append(algorithm.nets["critic"].mlp.layers[0].weight.grad.unflatten(0, (2, 2, 3)))
    assert torch.equal(grads[0][:, :, :2], grads[1][:, :, :2])
    assert not torch.equal(grads[0][:, :, 2], grads[1][:, :, 2])


def test_the_q_term_moves_the_policy_and_not_the_critic(build, make_batch):
    algorithm = build()
    algorithm.policy_loss(make_batch(algorithm.spec)).sum().backward()
    assert all(p.grad is None for p in algorithm.nets["critic"].parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in algorithm.nets["policy"].parameters())


# The loss terms, written out.


@pytest.mark.parametrize("derivative", ["fd", "jvp", "jacobian"])
def test_the_flow_loss_is_the_mean_flow_identity(build, make_batch, derivative):
    """For u = 2 z + 3 r + t, from data a at 0 to noise e at 1: v = e - a, du/dt = 2 v + 1 and u = v - (t - r) du/dt."""
    algorithm = build(derivative=derivative, action_scale=2.0, fd_step=0.01)
    batch = make_batch(algorithm.spec, size=2)
    noise, r = torch.randn_like(batch.actions), torch.full_like(batch.actions[..., :1], 0.25)
    algorithm.streams.normal = lambda *shape: noise
    algorithm.times = lambda *shape: (r, r + 0.5)
    algorithm.velocity = lambda obs: lambda z, r, t: 2 * z + 3 * r + t
    v = noise - 2 * batch.actions
    error = 2 * (2 * batch.actions + 0.75 * v) + 0.75 + 0.75 - (v - 0.5 * (2 * v + 1))
    assert_close(algorithm.flow_loss(batch), error.pow(2).mean((1, 2, 3)), rtol=1e-3, atol=1e-3)


def test_the_finite_difference_stays_within_the_interval(build):
    """At t = 0 it goes forward, and every difference takes two times that are one step apart."""
    algorithm, seen = build(fd_step=0.01), []
    t = torch.tensor([[0.0], [0.004], [0.5], [1.0]])
    algorithm.rate(lambda z, r, t: seen.append(t) or z, lambda s: s.square(), t, 0 * t, t)
    later, earlier = seen
    assert_close(later, t.clamp(min=0.01))
    assert_close(later - earlier, torch.full_like(t, 0.01))
    rate = algorithm.rate(lambda z, r, t: z, lambda s: s.square(), t, 0 * t, t)
    assert_close(rate, 2 * t.clamp(min=0.01) - 0.01, rtol=1e-3, atol=1e-4)  # of the square between both times


def test_td_takes_the_twins_mean_at_the_sampled_action_within_the_bounds(build, make_batch):
    algorithm = build(discount=0.9)
    batch, nets = make_batch(algorithm.spec), algorithm.nets
    points = 2 * torch.randn_like(batch.actions)
    algorithm.sample = lambda obs, noise: points if torch.equal(obs, batch.next_obs) and noise.std() > 0.8 else None
    with torch.no_grad():
        for parameter in nets["target_critic"].parameters():
            parameter.normal_()
        next_q = nets["target_critic"](batch.next_obs, points.clamp(-1, 1))[..., 0].mean(1)
        y = batch.rewards + 0.9 * (1 - batch.done)[..., None] * next_q
        q = nets["critic"](batch.obs, batch.actions)[..., 0]
    expected = sum((q[:, k] - y).pow(2).mean((1, 2)) for k in range(2))
    assert_close(algorithm.critic_loss(batch).detach(), expected)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_q_term_is_minus_the_twins_mean_over_its_magnitude(build, make_batch, normalise):
    algorithm = build(normalise_q=normalise)
    batch = make_batch(algorithm.spec, size=64)
    points = 2 * torch.randn_like(batch.actions)
    algorithm.sample = lambda obs, noise: points if torch.equal(obs, batch.obs) else None
    with torch.no_grad():
        q = algorithm.nets["critic"](batch.obs, points.clamp(-1, 1))[..., 0].mean(1)
    expected = -q.mean((1, 2)) / (q.abs().mean((1, 2)) if normalise else 1)
    assert_close(algorithm.policy_loss(batch).detach(), expected)


def test_both_weights_scale_their_terms(build, make_batch):
    algorithm = build(bc_weight=3.0, q_weight=5.0)
    algorithm.critic_loss, algorithm.flow_loss, algorithm.policy_loss = (
        lambda batch, loss=loss: torch.tensor([loss, 2 * loss]) for loss in (0.5, 0.25, -2.0)
    )
    losses = algorithm.losses(make_batch(algorithm.spec))
    assert {name: loss.tolist() for name, loss in losses.items()} == {
        "critic": [0.5, 1.0],
        "flow": [0.75, 1.5],
        "q": [-10.0, -20.0],
    }


def test_the_magnitude_of_q_is_a_constant_to_the_gradient(build, make_batch):
    algorithm = build()
    batch, noise = make_batch(algorithm.spec), torch.randn(2, 8, 3, 4)
    algorithm.streams.normal = lambda *shape: noise
    policy = list(algorithm.nets["policy"].parameters())
    found = torch.autograd.grad(algorithm.policy_loss(batch).sum(), policy)
    q = algorithm.nets["critic"](batch.obs, algorithm.sample(batch.obs, noise).clamp(-1, 1))[..., 0].mean(1)
    weight = 1 / q.detach().abs().mean((1, 2))
    for gradient, expected in zip(found, torch.autograd.grad(-(weight * q.mean((1, 2))).sum(), policy)):
        assert_close(gradient, expected)


def test_an_action_is_one_pass_from_noise_within_the_bounds(build):
    """The pass is over the whole interval: r = 0 and t = 1."""
    algorithm = build()
    noise = 2 * torch.randn(2, 6, 3, 4)
    algorithm.acting_noise = lambda *shape: noise.view(2, *shape)
    algorithm.velocity = lambda obs: lambda z, r, t: 0.5 * z + 7 * r + 0.1 * t
    assert_close(algorithm.act(torch.zeros(2, 6, 3, 5))[0], (0.5 * noise - 0.1).clamp(-1, 1))


def test_times_are_the_inverse_of_their_distribution(build):
    """Uniform: the draw itself, to a point of the grid; two weights: the law's mean; the ends are reached exactly."""
    algorithm = build(time_weights=(0.0,))
    draws = torch.rand(2, 500, 2)
    algorithm.streams.uniform = lambda *shape: draws
    r, t = algorithm.times(500)
    assert_close(r[..., 0], draws[..., 0], atol=2e-3, rtol=0)
    assert_close(1 - t[..., 0], draws[..., 1], atol=2e-3, rtol=0)
    algorithm.streams.uniform = lambda *shape: torch.tensor([[0.0, 0.0], [1.01, 1.01]])[:, None]  # the table ends below
    r, t = algorithm.times(1)
    assert r.flatten().tolist() == [0, 1] and t.flatten().tolist() == [1, 0]
    u = torch.linspace(0, 1, 100_001)
    density = torch.exp(2 * u - 6 * u.square())
    r, _ = build(time_weights=(2.0, -6.0)).times(20_000, 3)
    assert_close(r.mean(), (u * density).sum() / density.sum(), atol=5e-3, rtol=0)


def test_every_sample_and_agent_has_a_noise_and_two_times_of_its_own(build, make_batch):
    algorithm, shapes = build(), []
    normal, times = algorithm.streams.normal, algorithm.times
    algorithm.streams.normal = lambda *shape: shapes.append(shape) or normal(*shape)
    algorithm.times = lambda *shape: shapes.append(shape) or times(*shape)
    algorithm.flow_loss(make_batch(algorithm.spec))
    assert shapes == [(8, 3, 4), (8, 3)]
    r, t = times(8, 3)
    assert r.shape == t.shape == (2, 8, 3, 1) and r.unique().numel() > 24 and t.unique().numel() > 24
