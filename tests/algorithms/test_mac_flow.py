import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from offmarl.algorithms.flow import decode, euler
from offmarl.algorithms.flow_bc import Config as FlowBCConfig
from offmarl.algorithms.flow_bc import FlowBC
from offmarl.algorithms.ma_fql import MAFQL
from offmarl.algorithms.mac_flow import Config, MACFlow

SEEDS = (3, 5)


class Watched(MACFlow):
    """Keeps what passes between its parts."""

    def build(self):
        super().build()
        self.times, self.passed = [], {}

    def field(self, obs):
        inner = super().field(obs)

        def watch(x, t):
            self.times.append(t)
            return inner(x, t)

        return watch

    def teach(self, batch, noise):
        self.passed["teacher's noise"] = noise.clone()
        taught, actions = super().teach(batch, noise)
        self.passed |= {"taught": taught, "next actions": actions}
        return taught, actions

    def policy_losses(self, batch, noise, taught, q):
        self.passed |= {"policy's noise": noise, "taught to policy": taught, "q": q}
        return super().policy_losses(batch, noise, taught, q)


@pytest.fixture
def build(make_spec):
    def make(seeds=SEEDS, cls=MACFlow, space="discrete", **over):
        return cls(make_spec(space), Config(**{"hidden": (16, 16), **over}), seeds)

    return make


@pytest.fixture
def released(build):
    def make(**over):
        return build(**{**MACFlow.variants["released"], "hidden": (16, 16), **over})

    return make


def moved_by(algorithm, batch, term):
    """Largest gradient of one loss term in each network, 0 where there is none."""
    algorithm.nets.zero_grad(set_to_none=True)
    loss = algorithm.losses(batch)[term].sum()
    if loss.requires_grad:
        loss.backward()
    grads = {name: [p.grad for p in net.parameters()] for name, net in algorithm.nets.named_children()}
    return {name: max(0.0 if g is None else g.abs().max().item() for g in each) for name, each in grads.items()}


def only_legal(next_actions, actions=4):
    """Masks that leave each agent one action."""
    return F.one_hot(next_actions, actions).bool()


# Which term moves which network (13b, 1 and 8)


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("guidance", ["expected", "straight_through"])
def test_q_guidance_moves_the_policy_and_nothing_else(build, make_batch, guidance, layer_norm):
    algorithm = build(q_guidance=guidance, layer_norm=layer_norm)
    moved = moved_by(algorithm, make_batch(algorithm.spec), "q")
    assert moved.pop("policy") > 1e-4
    assert set(moved.values()) == {0.0}


@pytest.mark.parametrize("normalise", [False, True])
def test_continuous_q_guidance_moves_the_policy_and_nothing_else(build, make_batch, normalise):
    algorithm = build(space="continuous", normalise_q=normalise)
    moved = moved_by(algorithm, make_batch(algorithm.spec), "q")
    assert moved.pop("policy") > 1e-4
    assert set(moved.values()) == {0.0}


def test_q_guidance_through_the_argmax_moves_nothing(build, make_batch):
    algorithm = build(q_guidance="argmax")
    assert set(moved_by(algorithm, make_batch(algorithm.spec), "q").values()) == {0.0}


def test_straight_through_guidance_pushes_as_the_expected_value_does(build, make_batch):
    grads = {}
    for guidance in ("expected", "straight_through"):
        algorithm = build(q_guidance=guidance)
        algorithm.losses(make_batch(algorithm.spec))["q"].sum().backward()
        grads[guidance] = [p.grad for p in algorithm.nets["policy"].parameters()]
    assert_close(grads["straight_through"], grads["expected"])


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("distillation", ["mse", "cross_entropy"])
@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_distillation_moves_the_policy_and_nothing_else(build, make_batch, space, distillation, joint):
    algorithm = build(space=space, distillation=distillation, joint_flow=joint)
    moved = moved_by(algorithm, make_batch(algorithm.spec), "distillation")
    assert moved.pop("policy") > 1e-4
    assert set(moved.values()) == {0.0}


@pytest.mark.parametrize("td_action", ["flow", "policy"])
@pytest.mark.parametrize("term", ["critic", "flow"])
@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_critics_and_the_flows_losses_move_only_themselves(build, make_batch, space, term, td_action):
    algorithm = build(space=space, td_action=td_action)
    moved = moved_by(algorithm, make_batch(algorithm.spec), term)
    assert moved.pop(term) > 1e-4
    assert set(moved.values()) == {0.0}


# The critic


@pytest.mark.parametrize("mixer", ["mean", "none"])
@pytest.mark.parametrize("td_action", ["flow", "policy"])
def test_td_loss_follows_its_closed_form(build, make_batch, set_value, td_action, mixer):
    algorithm = build(td_action=td_action, mixer=mixer, discount=0.9)
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
def test_continuous_td_loss_values_the_clipped_next_actions(build, make_batch, td_action, mixer):
    algorithm = build(space="continuous", cls=Watched, td_action=td_action, mixer=mixer, discount=0.9)
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


def test_the_next_observation_counts_until_the_end(build, make_batch):
    algorithm = build()
    batch, other = make_batch(algorithm.spec), make_batch(algorithm.spec, draw=1)
    batch = batch._replace(next_legal=only_legal(batch.actions))  # the next action is settled: only its value counts
    for done in (0.0, 1.0):
        here = batch._replace(done=torch.full_like(batch.done, done))
        one, elsewhere = (algorithm.losses(each)["critic"] for each in (here, here._replace(next_obs=other.next_obs)))
        assert ((one == elsewhere) == (done == 1.0)).all()


@pytest.mark.parametrize("td_action", ["flow", "policy"])
def test_td_actions_are_legal_where_they_are_masked(build, make_batch, td_action):
    batch = make_batch(build().spec, size=64)
    legal = {}
    for mask in (True, False):
        algorithm = build(td_action=td_action, mask_td=mask, cls=Watched)
        algorithm.losses(batch)
        legal[mask] = batch.next_legal.gather(-1, algorithm.passed["next actions"][..., None])
    assert legal[True].all() and not legal[False].all()


@pytest.mark.parametrize("joint", [True, False])
def test_td_actions_come_from_the_flow_or_from_the_policy(build, make_batch, joint):
    batch = make_batch(build().spec, size=64)
    for td_action, source in (("flow", "flow"), ("policy", "policy")):
        proposals = []
        for altered in (None, "flow", "policy"):
            algorithm = build(td_action=td_action, joint_flow=joint, cls=Watched)
            with torch.no_grad():
                for parameter in algorithm.nets[altered].parameters() if altered else ():
                    parameter.normal_()
            algorithm.losses(batch)
            proposals.append(algorithm.passed["next actions"])
        assert torch.equal(proposals[0], proposals[1]) == (source != "flow")
        assert torch.equal(proposals[0], proposals[2]) == (source != "policy")


def test_the_target_critic_moves_by_polyak_exactly(build, make_batch):
    algorithm = build(polyak=0.25, learning_rate=1e-2)
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
def test_an_agents_field_knows_the_others_in_the_joint_flow_only(build, make_batch, joint):
    algorithm = build(joint_flow=joint)
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
def test_the_joint_flow_learns_at_one_time_for_the_team(build, make_batch, joint):
    algorithm = build(joint_flow=joint, cls=Watched)
    algorithm.flow_loss(make_batch(algorithm.spec, size=64))
    (time,) = algorithm.times
    assert time.shape == (2, 64, 3, 1)
    assert (time == time[:, :, :1]).all() == joint
    assert time[:, :, 0].unique().numel() == 128 and time.min() >= 0 and time.max() < 1


@pytest.mark.parametrize("joint", [True, False])
def test_the_flow_learns_actions_from_their_own_observations(build, make_batch, joint):
    spec = build().spec
    batch, other = make_batch(spec), make_batch(spec, draw=1)

    def loss(each):
        return build(joint_flow=joint).losses(each)["flow"]

    assert torch.equal(loss(batch), loss(other._replace(obs=batch.obs, actions=batch.actions)))
    assert (loss(batch) != loss(batch._replace(obs=other.obs))).all()
    assert (loss(batch) != loss(batch._replace(actions=other.actions))).all()


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_flow_loss_of_a_resting_field_follows_from_the_variances(build, make_batch, set_value, scale):
    algorithm = build(joint_flow=False, action_scale=scale)
    set_value(algorithm.nets["flow"], torch.zeros(2, 4))
    loss = algorithm.losses(make_batch(algorithm.spec, size=4000))["flow"]
    # The mean of |one-hot - noise|^2 over four coordinates.
    assert_close(loss.detach(), torch.full((2,), 1 + scale**2 / 4), rtol=0.03, atol=0)


@pytest.mark.parametrize("td_action", ["flow", "policy"])
@pytest.mark.parametrize("joint", [True, False])
def test_the_teacher_is_the_integrated_flow(build, make_batch, td_action, joint):
    algorithm = build(td_action=td_action, joint_flow=joint, flow_steps=4, mask_td=False)
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


# The policy


@pytest.mark.parametrize("td_action", ["flow", "policy"])
def test_policy_and_teacher_start_from_the_same_noise(build, make_batch, td_action):
    algorithm = build(td_action=td_action, cls=Watched)
    algorithm.losses(make_batch(algorithm.spec))
    passed = algorithm.passed
    assert torch.equal(passed["teacher's noise"], passed["policy's noise"])
    assert torch.equal(passed["taught"], passed["taught to policy"])
    assert passed["policy's noise"].std() > 0.8


def test_the_policy_follows_the_mean_of_the_current_critics(build, make_batch):
    algorithm = build(cls=Watched)
    batch = make_batch(algorithm.spec)
    algorithm.losses(batch)
    assert_close(algorithm.passed["q"], algorithm.nets["critic"](batch.obs).detach().mean(1))
    assert not algorithm.passed["q"].requires_grad


@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_distillation_follows_its_closed_form(build, make_batch, kind):
    algorithm = build(distillation=kind, alpha=0.7)
    batch = make_batch(algorithm.spec)
    noise, taught, q = torch.randn(3, 2, 8, 3, 4)
    loss = algorithm.policy_losses(batch, noise, taught, q)["distillation"]
    out = algorithm.nets["policy"](batch.obs, noise)
    if kind == "mse":  # Eq. 7: the squared distance of an agent's whole action
        expected = (out - taught).pow(2).sum(-1).mean((1, 2)) / 4  # a mean over coordinates, as released
    else:
        labels = taught.masked_fill(~batch.legal, -1e9).argmax(-1)
        expected = -out.log_softmax(-1).gather(-1, labels[..., None]).mean((1, 2, 3))
    assert_close(loss, 0.7 * expected)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("guidance", ["expected", "straight_through", "argmax"])
def test_the_q_term_is_the_mixed_value_of_the_policys_legal_choice(build, make_batch, guidance, normalise):
    algorithm = build(q_guidance=guidance, normalise_q=normalise)
    batch = make_batch(algorithm.spec)
    noise, taught, q = torch.randn(3, 2, 8, 3, 4)
    q += 3
    loss = algorithm.policy_losses(batch, noise, taught, q)["q"]
    scores = algorithm.nets["policy"](batch.obs, noise).masked_fill(~batch.legal, -1e9)
    hard = F.one_hot(scores.argmax(-1), 4).float()
    value = (q * (scores.softmax(-1) if guidance == "expected" else hard)).sum(-1).mean((1, 2))
    assert_close(loss, -value / (q.abs().mean((1, 2, 3)) if normalise else 1.0))


@pytest.mark.parametrize("normalise", [False, True])
def test_the_continuous_q_term_is_the_mean_critics_value_of_the_clipped_action(build, make_batch, normalise):
    algorithm = build(space="continuous", normalise_q=normalise)
    batch = make_batch(algorithm.spec)
    noise, taught = torch.randn(2, 2, 8, 3, 4)
    q = torch.randn(2, 8, 3, 1) + 3  # of the data's actions
    loss = algorithm.policy_losses(batch, 3 * noise, taught, q)["q"]
    out = algorithm.nets["policy"](batch.obs, 3 * noise)
    assert out.abs().max() > 1
    value = algorithm.nets["critic"](batch.obs, out.clamp(-1, 1)).mean((1, 2, 3, 4))
    assert_close(loss, -value / (q.abs().mean((1, 2, 3)) if normalise else 1.0))


@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_continuous_distillation_is_the_mean_squared_distance(build, make_batch, kind):
    algorithm = build(space="continuous", distillation=kind, alpha=0.7)
    batch = make_batch(algorithm.spec)
    noise, taught = torch.randn(2, 2, 8, 3, 4)
    loss = algorithm.policy_losses(batch, noise, taught, torch.ones(2, 8, 3, 1))["distillation"]
    assert_close(loss, 0.7 * (algorithm.nets["policy"](batch.obs, noise) - taught).pow(2).mean((1, 2, 3)))


def test_a_normalised_q_term_does_not_depend_on_the_scale_of_values(build, make_batch):
    algorithm = build(normalise_q=True)
    batch = make_batch(algorithm.spec)
    noise, taught, q = torch.randn(3, 2, 8, 3, 4)
    one, other = (algorithm.policy_losses(batch, noise, taught, scale * q)["q"] for scale in (1, 50))
    assert_close(one, other)


def test_a_constant_bandits_policy_finds_the_better_action_of_the_data(build, make_batch):
    """Both actions occur equally often, the second pays: imitation alone is torn, guidance is not."""
    algorithm = build(flow_steps=3, learning_rate=3e-3, action_scale=2.0, alpha=0.1, discount=0.0)
    for draw in range(250):
        batch = make_batch(algorithm.spec, size=32, draw=draw)
        actions = batch.actions % 2
        everything = torch.ones_like(batch.legal)
        algorithm.update(batch._replace(actions=actions, rewards=4.0 * actions, legal=everything))
    obs = make_batch(algorithm.spec, size=200, draw=999).obs
    assert (algorithm.act(obs)[0] == 1).float().mean() > 0.9


def test_a_continuous_policy_moves_to_the_better_end_of_the_data(build, make_batch):
    algorithm = build(space="continuous", flow_steps=3, learning_rate=3e-3, alpha=0.1, discount=0.0)
    for draw in range(250):
        batch = make_batch(algorithm.spec, size=32, draw=draw)
        algorithm.update(batch._replace(rewards=2 * batch.actions[..., 0]))
    actions, _ = algorithm.act(make_batch(algorithm.spec, size=200, draw=999).obs)
    assert actions[..., 0].mean() > 0.7
    assert actions[..., 1:].mean().abs() < 0.25


def test_ma_fql_is_mac_flow_without_joint_flow_and_igm(make_spec, make_batch):
    """The same numbers, bit for bit."""
    apart = {"joint_flow": False, "mixer": "none", "td_action": "policy"}
    for space in ("discrete", "continuous"):
        spec = make_spec(space)
        one = MAFQL(spec, MAFQL.Config(hidden=(16, 16)), SEEDS)
        other = MACFlow(spec, Config(hidden=(16, 16), **apart), SEEDS)
        for draw in range(2):
            batch = make_batch(spec, draw=draw)
            losses = one.update(batch), other.update(batch)
            assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[1])


# The released settings


def test_released_settings_are_those_the_file_names(released):
    config = released().config
    assert not config.joint_flow
    assert config.q_guidance == "argmax"
    assert (config.td_action, config.mask_td) == ("policy", False)
    assert config.distillation == "cross_entropy"
    paper = Config()
    assert paper.joint_flow and paper.q_guidance == "expected"
    assert (paper.td_action, paper.mask_td, paper.distillation) == ("flow", True, "mse")
    assert (paper.alpha, paper.flow_steps, paper.discount, paper.polyak, paper.hidden) == (
        3.0,
        10,
        0.995,
        0.005,
        (512,) * 4,
    )


def test_released_td_targets_know_no_mask(released, build, make_batch):
    batch = make_batch(released().spec)
    masked, free = batch, batch._replace(next_legal=None)
    assert torch.equal(*(released().losses(each)["critic"] for each in (masked, free)))
    assert (build().losses(masked)["critic"] != build().losses(free)["critic"]).all()


def test_released_policies_learn_nothing_from_values(released, make_batch):
    """The same policy, bit for bit, whatever the rewards."""
    one, other = released(), released()
    for draw in range(3):
        batch = make_batch(one.spec, draw=draw)
        one.update(batch)
        other.update(batch._replace(rewards=100 * batch.rewards))
    policies, critics = ([m.nets[name].state_dict() for m in (one, other)] for name in ("policy", "critic"))
    assert all(torch.equal(policies[0][n], policies[1][n]) for n in policies[0])
    assert any(not torch.equal(critics[0][n], critics[1][n]) for n in critics[0])


def test_released_flow_and_policy_have_no_layer_norm_but_the_critic_has(released):
    nets = released().nets
    normed = {name: any("norms" in key for key in net.state_dict()) for name, net in nets.named_children()}
    assert normed == {"flow": False, "policy": False, "critic": True, "target_critic": True}


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
