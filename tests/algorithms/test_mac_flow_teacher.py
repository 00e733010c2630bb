"""The teacher of MAC-Flow: critic and joint flow, and what the joint flow is for."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from offmarl.algorithms.flow_bc import Config as FlowBCConfig
from offmarl.algorithms.flow_bc import FlowBC
from offmarl.algorithms.mac_flow import Config, MACFlow
from offmarl.algorithms.parts.flow import decode, euler

SEEDS = (3, 5)


def only_legal(next_actions, actions=4):
    """Masks that leave each agent one action."""
    return F.one_hot(next_actions, actions).bool()


# The critic


@pytest.mark.parametrize("mixer", ["mean", "none"])
@pytest.mark.parametrize("td_action", ["flow", "policy"])
def test_td_loss_follows_its_closed_form(mac_flow, make_batch, set_value, td_action, mixer):
    algorithm = mac_flow(td_action=td_action, mixer=mixer, discount=0.9)
    online = torch.tensor([[0.0, 5.0, 1.0, 2.0], [1.0, 0.0, 2.0, 7.0]])
    target = torch.tensor([[3.0, -1.0, 4.0, 0.5], [2.0, 6.0, -2.0, 1.5]])
    set_value(algorithm.nets["critic"], online.repeat(2, 1))
    set_value(algorithm.nets["target_critic"], target.repeat(2, 1))
    batch = make_batch(algorithm.spec, size=32)
    next_actions = torch.randint(4, batch.actions.shape)
    batch = batch._replace(next_legal=only_legal(next_actions))  # so the proposal is known
    assert batch.done.unique().tolist() == [0.0, 1.0]
    expected = torch.zeros(2)
    for s in range(2):
        for b in range(32):
            follows = torch.stack([target[:, a].mean() for a in next_actions[s, b]])
            y = batch.rewards[s, b] + 0.9 * (1 - batch.done[s, b]) * follows
            for member in online:
                error = member[batch.actions[s, b]] - y
                expected[s] += (error.mean().pow(2) if mixer == "mean" else error.pow(2).mean()) / 32
    assert_close(algorithm.losses(batch)["critic"].detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixer", ["mean", "none"])
@pytest.mark.parametrize("td_action", ["flow", "policy"])
def test_continuous_td_loss_values_the_clipped_next_actions(mac_flow, make_batch, td_action, mixer, watched):
    algorithm = mac_flow(space="continuous", cls=watched, td_action=td_action, mixer=mixer, discount=0.9)
    critic, target = algorithm.nets["critic"], algorithm.nets["target_critic"]
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.normal_()
    batch = make_batch(algorithm.spec)
    loss = algorithm.losses(batch)["critic"]
    next_actions = algorithm.passed["next actions"]
    assert next_actions.shape == batch.actions.shape and next_actions.abs().max() == 1.0  # some would be out of range
    follows = target(batch.next_obs, next_actions)[..., 0].mean(1)
    y = batch.rewards + 0.9 * (1 - batch.done)[..., None] * follows
    error = critic(batch.obs, batch.actions)[..., 0] - y[:, None]  # [S, 2, B, I]
    expected = error.mean(-1).pow(2).mean(2) if mixer == "mean" else error.pow(2).mean((2, 3))
    assert_close(loss, expected.sum(1))


def test_the_mixer_does_not_matter_to_a_single_agent(make_spec, make_batch):
    for space in ("discrete", "continuous"):
        spec = make_spec(space, agents=1)
        one, other = (MACFlow(spec, Config(hidden=(16, 16), mixer=mixer), SEEDS) for mixer in ("mean", "none"))
        assert_close(one.losses(make_batch(spec)), other.losses(make_batch(spec)))


def test_the_next_observation_counts_until_the_end(mac_flow, make_batch):
    algorithm = mac_flow()
    batch, other = make_batch(algorithm.spec), make_batch(algorithm.spec, draw=1)
    batch = batch._replace(next_legal=only_legal(batch.actions))  # the next action is settled: only its value counts
    for done in (0.0, 1.0):
        here = batch._replace(done=torch.full_like(batch.done, done))
        one, elsewhere = (algorithm.losses(each)["critic"] for each in (here, here._replace(next_obs=other.next_obs)))
        assert ((one == elsewhere) == (done == 1.0)).all()


@pytest.mark.parametrize("td_action", ["flow", "policy"])
def test_td_actions_are_legal_where_they_are_masked(mac_flow, make_batch, td_action, watched):
    batch = make_batch(mac_flow().spec, size=64)
    legal = {}
    for mask in (True, False):
        algorithm = mac_flow(td_action=td_action, mask_td=mask, cls=watched)
        algorithm.losses(batch)
        legal[mask] = batch.next_legal.gather(-1, algorithm.passed["next actions"][..., None])
    assert legal[True].all() and not legal[False].all()


@pytest.mark.parametrize("joint", [True, False])
def test_td_actions_come_from_the_flow_or_from_the_policy(mac_flow, make_batch, joint, watched):
    batch = make_batch(mac_flow().spec, size=64)
    for td_action, source in (("flow", "flow"), ("policy", "policy")):
        proposals = []
        for altered in (None, "flow", "policy"):
            algorithm = mac_flow(td_action=td_action, joint_flow=joint, cls=watched)
            with torch.no_grad():
                for parameter in algorithm.nets[altered].parameters() if altered else ():
                    parameter.normal_()
            algorithm.losses(batch)
            proposals.append(algorithm.passed["next actions"])
        assert torch.equal(proposals[0], proposals[1]) == (source != "flow")
        assert torch.equal(proposals[0], proposals[2]) == (source != "policy")


def test_the_target_critic_moves_by_polyak_exactly(mac_flow, make_batch):
    algorithm = mac_flow(polyak=0.25, learning_rate=1e-2)
    target, critic = (dict(algorithm.nets[name].named_parameters()) for name in ("target_critic", "critic"))
    with torch.no_grad():
        for parameter in target.values():
            parameter.normal_()  # far from the critic
    for draw in range(3):
        before = {name: p.clone() for name, p in target.items()}
        algorithm.update(make_batch(algorithm.spec, draw=draw))
        for name, now in target.items():
            assert_close(now, 0.75 * before[name] + 0.25 * critic[name].detach(), rtol=1e-6, atol=1e-6)


# The flow


@pytest.mark.parametrize("joint", [True, False])
def test_an_agents_field_knows_the_others_in_the_joint_flow_only(mac_flow, make_batch, joint):
    algorithm = mac_flow(joint_flow=joint)
    obs = make_batch(algorithm.spec).obs
    x, t = torch.randn(2, 8, 3, 4), torch.rand(2, 8, 1, 1).expand(-1, -1, 3, -1)
    velocity = algorithm.field(obs)(x, t)
    assert velocity.shape == x.shape
    for j in range(3):
        other_obs, other_x = obs.clone(), x.clone()
        other_obs[:, :, j] += 1
        other_x[:, :, j] += 1
        for again in (algorithm.field(other_obs)(x, t), algorithm.field(obs)(other_x, t)):
            changed = (again != velocity).any(-1).all(1).all(0)  # [I], in every row of every seed
            assert changed.tolist() == [joint or i == j for i in range(3)]


@pytest.mark.parametrize("joint", [True, False])
def test_the_joint_flow_learns_at_one_time_for_the_team(mac_flow, make_batch, joint, watched):
    algorithm = mac_flow(joint_flow=joint, cls=watched)
    algorithm.flow_loss(make_batch(algorithm.spec, size=64))
    (time,) = algorithm.times
    assert time.shape == (2, 64, 3, 1)
    assert (time == time[:, :, :1]).all() == joint
    assert time[:, :, 0].unique().numel() == 128 and time.min() >= 0 and time.max() < 1


@pytest.mark.parametrize("joint", [True, False])
def test_the_flow_learns_actions_from_their_own_observations(mac_flow, make_batch, joint):
    spec = mac_flow().spec
    batch, other = make_batch(spec), make_batch(spec, draw=1)

    def loss(each):
        return mac_flow(joint_flow=joint).losses(each)["flow"]

    assert torch.equal(loss(batch), loss(other._replace(obs=batch.obs, actions=batch.actions)))
    assert (loss(batch) != loss(batch._replace(obs=other.obs))).all()
    assert (loss(batch) != loss(batch._replace(actions=other.actions))).all()


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_flow_loss_of_a_resting_field_follows_from_the_variances(mac_flow, make_batch, set_value, scale):
    algorithm = mac_flow(joint_flow=False, action_scale=scale)
    set_value(algorithm.nets["flow"], torch.zeros(2, 4))
    loss = algorithm.losses(make_batch(algorithm.spec, size=4000))["flow"]
    # The mean of |one-hot - noise|^2 over four coordinates.
    assert_close(loss.detach(), torch.full((2,), 1 + scale**2 / 4), rtol=0.03, atol=0)


@pytest.mark.parametrize("td_action", ["flow", "policy"])
@pytest.mark.parametrize("joint", [True, False])
def test_the_teacher_is_the_integrated_flow(mac_flow, make_batch, td_action, joint):
    algorithm = mac_flow(td_action=td_action, joint_flow=joint, flow_steps=4, mask_td=False)
    batch, noise = make_batch(algorithm.spec), torch.randn(2, 8, 3, 4)
    state = algorithm.streams.state_dict()
    taught, proposed = algorithm.teach(batch, noise)
    with torch.no_grad():
        assert_close(taught, euler(algorithm.field(batch.obs), noise, 4))
        algorithm.streams.load_state_dict(state)
        next_noise = algorithm.streams.normal(8, 3, 4)
        points = (
            euler(algorithm.field(batch.next_obs), next_noise, 4)
            if td_action == "flow"
            else algorithm.nets["policy"](batch.next_obs, next_noise)
        )
        assert torch.equal(proposed, decode(points, None))
    assert not taught.requires_grad


# What the joint flow is for


def test_only_the_joint_flow_keeps_two_agents_to_one_tactic(make_spec, make_batch):
    """Data: both agents 0 or both agents 1, half and half, nothing to see. Independent flows mix the tactics."""
    spec, steps = make_spec(agents=2, obs=1, state=1, actions=2), 10
    common = {"hidden": (32, 32), "learning_rate": 3e-3, "action_scale": 3.0, "flow_steps": steps}
    joint = MACFlow(spec, Config(**common), [0])
    alone = FlowBC(spec, FlowBCConfig(**common), [0])
    for draw in range(400):
        batch = make_batch(spec, [0], size=128, draw=draw)
        tactic = batch.actions[:, :, :1].expand(-1, -1, 2)
        batch = batch._replace(
            obs=torch.zeros_like(batch.obs),
            next_obs=torch.zeros_like(batch.obs),
            actions=tactic,
            legal=torch.ones_like(batch.legal),
            next_legal=torch.ones_like(batch.legal),
        )
        joint.update(batch)
        alone.update(batch)
    obs = torch.zeros(1, 4000, 2, 1)
    with torch.no_grad():
        together = decode(euler(joint.field(obs), torch.randn(1, 4000, 2, 2), steps), None)
    apart, _ = alone.act(obs)
    for actions in (together, apart):
        assert (actions.float().mean((0, 1)) - 0.5).abs().max() < 0.15  # either tactic about as often as in the data
    agreement = [(actions[..., 0] == actions[..., 1]).float().mean().item() for actions in (together, apart)]
    assert agreement[0] > 0.9
    assert 0.4 < agreement[1] < 0.7
