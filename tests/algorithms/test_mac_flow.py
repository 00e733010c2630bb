"""The policy of MAC-Flow: which terms move it, what it is taught, and the released settings."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from offmarl.algorithms.ma_fql import MAFQL
from offmarl.algorithms.mac_flow import Config, MACFlow

SEEDS = (3, 5)


@pytest.fixture
def released(mac_flow):
    def make(**over):
        return mac_flow(**{**MACFlow.variant("released", over.get("space", "discrete")), "hidden": (16, 16), **over})

    return make


def moved_by(algorithm, batch, term):
    """Largest gradient of one loss term in each network, 0 where there is none."""
    algorithm.nets.zero_grad(set_to_none=True)
    loss = algorithm.losses(batch)[term].sum()
    if loss.requires_grad:
        loss.backward()
    grads = {name: [p.grad for p in net.parameters()] for name, net in algorithm.nets.named_children()}
    return {name: max(0.0 if g is None else g.abs().max().item() for g in each) for name, each in grads.items()}


# Which term moves which network (13b, 1 and 8)


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("guidance", ["expected", "straight_through"])
def test_q_guidance_moves_the_policy_and_nothing_else(mac_flow, make_batch, guidance, layer_norm):
    algorithm = mac_flow(q_guidance=guidance, layer_norm=layer_norm)
    moved = moved_by(algorithm, make_batch(algorithm.spec), "q")
    assert moved.pop("policy") > 1e-4
    assert set(moved.values()) == {0.0}


@pytest.mark.parametrize("normalise", [False, True])
def test_continuous_q_guidance_moves_the_policy_and_nothing_else(mac_flow, make_batch, normalise):
    algorithm = mac_flow(space="continuous", normalise_q=normalise)
    moved = moved_by(algorithm, make_batch(algorithm.spec), "q")
    assert moved.pop("policy") > 1e-4
    assert set(moved.values()) == {0.0}


def test_q_guidance_through_the_argmax_moves_nothing(mac_flow, make_batch):
    algorithm = mac_flow(q_guidance="argmax")
    assert set(moved_by(algorithm, make_batch(algorithm.spec), "q").values()) == {0.0}


def test_straight_through_guidance_pushes_as_the_expected_value_does(mac_flow, make_batch):
    grads = {}
    for guidance in ("expected", "straight_through"):
        algorithm = mac_flow(q_guidance=guidance)
        algorithm.losses(make_batch(algorithm.spec))["q"].sum().backward()
        grads[guidance] = [p.grad for p in algorithm.nets["policy"].parameters()]
    assert_close(grads["straight_through"], grads["expected"])


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("distillation", ["mse", "cross_entropy"])
@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_distillation_moves_the_policy_and_nothing_else(mac_flow, make_batch, space, distillation, joint):
    algorithm = mac_flow(space=space, distillation=distillation, joint_flow=joint)
    moved = moved_by(algorithm, make_batch(algorithm.spec), "distillation")
    assert moved.pop("policy") > 1e-4
    assert set(moved.values()) == {0.0}


@pytest.mark.parametrize("td_action", ["flow", "policy"])
@pytest.mark.parametrize("term", ["critic", "flow"])
@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_critics_and_the_flows_losses_move_only_themselves(mac_flow, make_batch, space, term, td_action):
    algorithm = mac_flow(space=space, td_action=td_action)
    moved = moved_by(algorithm, make_batch(algorithm.spec), term)
    assert moved.pop(term) > 1e-4
    assert set(moved.values()) == {0.0}


# The policy


@pytest.mark.parametrize("td_action", ["flow", "policy"])
def test_policy_and_teacher_start_from_the_same_noise(mac_flow, make_batch, td_action, watched):
    algorithm = mac_flow(td_action=td_action, cls=watched)
    algorithm.losses(make_batch(algorithm.spec))
    passed = algorithm.passed
    assert torch.equal(passed["teacher's noise"], passed["policy's noise"])
    assert torch.equal(passed["taught"], passed["taught to policy"])
    assert passed["policy's noise"].std() > 0.8


def test_the_policy_follows_the_mean_of_the_current_critics(mac_flow, make_batch, watched):
    algorithm = mac_flow(cls=watched)
    batch = make_batch(algorithm.spec)
    algorithm.losses(batch)
    assert_close(algorithm.passed["q"], algorithm.nets["critic"](batch.obs).detach().mean(1))
    assert not algorithm.passed["q"].requires_grad


@pytest.mark.parametrize("over", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_distillation_follows_its_closed_form(mac_flow, make_batch, kind, over):
    """Eq. 9 weighs the sum over the three agents, and Eq. 7 that of four coordinates; the code takes means."""
    algorithm = mac_flow(distillation=kind, alpha=0.7, distillation_over=over)
    batch = make_batch(algorithm.spec)
    noise, taught, q = torch.randn(3, 2, 8, 3, 4)
    loss = algorithm.policy_losses(batch, noise, taught, q)["distillation"]
    out = algorithm.nets["policy"](batch.obs, noise)
    if kind == "mse":
        expected = (out - taught).pow(2).sum((2, 3)).mean(1) / (12 if over == "mean" else 1)
    else:
        labels = taught.masked_fill(~batch.legal, -1e9).argmax(-1)
        expected = -out.log_softmax(-1).gather(-1, labels[..., None]).sum((2, 3)).mean(1) / (3 if over == "mean" else 1)
    assert_close(loss, 0.7 * expected)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("guidance", ["expected", "straight_through", "argmax"])
def test_the_q_term_is_the_mixed_value_of_the_policys_legal_choice(mac_flow, make_batch, guidance, normalise):
    algorithm = mac_flow(q_guidance=guidance, normalise_q=normalise)
    batch = make_batch(algorithm.spec)
    noise, taught, q = torch.randn(3, 2, 8, 3, 4)
    q += 3
    loss = algorithm.policy_losses(batch, noise, taught, q)["q"]
    scores = algorithm.nets["policy"](batch.obs, noise).masked_fill(~batch.legal, -1e9)
    hard = F.one_hot(scores.argmax(-1), 4).float()
    value = (q * (scores.softmax(-1) if guidance == "expected" else hard)).sum(-1).mean((1, 2))
    assert_close(loss, -value / (q.abs().mean((1, 2, 3)) if normalise else 1.0))


@pytest.mark.parametrize("normalise", [False, True])
def test_the_continuous_q_term_is_the_mean_critics_value_of_the_clipped_action(mac_flow, make_batch, normalise):
    algorithm = mac_flow(space="continuous", normalise_q=normalise)
    batch = make_batch(algorithm.spec)
    noise, taught = torch.randn(2, 2, 8, 3, 4)
    q = torch.randn(2, 8, 3, 1) + 3  # of the data's actions
    loss = algorithm.policy_losses(batch, 3 * noise, taught, q)["q"]
    out = algorithm.nets["policy"](batch.obs, 3 * noise)
    assert out.abs().max() > 1
    value = algorithm.nets["critic"](batch.obs, out.clamp(-1, 1)).mean((1, 2, 3, 4))
    assert_close(loss, -value / (q.abs().mean((1, 2, 3)) if normalise else 1.0))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("over", "count"), [("sum", 1), ("mean", 12)])
@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_continuous_distillation_is_the_squared_distance(mac_flow, make_batch, kind, over, count, clip):
    settings = {"distillation_over": over, "clip_teacher": clip, "action_scale": 0.5}
    algorithm = mac_flow(space="continuous", distillation=kind, alpha=0.7, **settings)
    batch = make_batch(algorithm.spec)
    noise, taught = torch.randn(2, 2, 8, 3, 4)
    loss = algorithm.policy_losses(batch, noise, taught, torch.ones(2, 8, 3, 1))["distillation"]
    goal = taught.clamp(-0.5, 0.5) if clip else taught
    expected = (algorithm.nets["policy"](batch.obs, noise) - goal).pow(2).sum((2, 3)).mean(1) / count
    assert_close(loss, 0.7 * expected)


def test_a_normalised_q_term_does_not_depend_on_the_scale_of_values(mac_flow, make_batch):
    algorithm = mac_flow(normalise_q=True)
    batch = make_batch(algorithm.spec)
    noise, taught, q = torch.randn(3, 2, 8, 3, 4)
    one, other = (algorithm.policy_losses(batch, noise, taught, scale * q)["q"] for scale in (1, 50))
    assert_close(one, other)


def test_a_constant_bandits_policy_finds_the_better_action_of_the_data(mac_flow, make_batch):
    """Both actions occur equally often, the second pays: imitation alone is torn, guidance is not."""
    algorithm = mac_flow(flow_steps=3, learning_rate=3e-3, action_scale=2.0, alpha=0.1, discount=0.0)
    for draw in range(250):
        batch = make_batch(algorithm.spec, size=32, draw=draw)
        actions = batch.actions % 2
        everything = torch.ones_like(batch.legal)
        algorithm.update(batch._replace(actions=actions, rewards=4.0 * actions, legal=everything))
    obs = make_batch(algorithm.spec, size=200, draw=999).obs
    assert (algorithm.act(obs)[0] == 1).float().mean() > 0.9


def test_a_continuous_policy_moves_to_the_better_end_of_the_data(mac_flow, make_batch):
    algorithm = mac_flow(space="continuous", flow_steps=3, learning_rate=3e-3, alpha=0.1, discount=0.0)
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


def test_released_td_targets_know_no_mask(released, mac_flow, make_batch):
    batch = make_batch(released().spec)
    masked, free = batch, batch._replace(next_legal=None)
    assert torch.equal(*(released().losses(each)["critic"] for each in (masked, free)))
    assert (mac_flow().losses(masked)["critic"] != mac_flow().losses(free)["critic"]).all()


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


# The ablations of Figures 6 to 9


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_without_q_the_policy_is_taught_by_the_flow_alone(mac_flow, make_batch, space):
    algorithm = mac_flow(space=space, **MACFlow.variants["without_q"])
    assert set(moved_by(algorithm, make_batch(algorithm.spec), "q").values()) == {0.0}
    assert moved_by(algorithm, make_batch(algorithm.spec), "distillation")["policy"] > 1e-4


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_without_distillation_the_integrated_flow_acts(mac_flow, look, space, joint):
    algorithm = mac_flow(space=space, acts_by="flow", joint_flow=joint, flow_steps=4)
    algorithm.play = "zero"
    obs, legal = look(algorithm.spec)
    noise = torch.zeros(*obs.shape[:-1], algorithm.spec.actions)
    x = noise
    with torch.no_grad():
        for k in range(4):
            x = x + algorithm.field(obs)(x, torch.full_like(x[..., :1], k / 4)) / 4
    assert torch.equal(algorithm.act(obs, legal)[0], algorithm.decide(x, legal))
    assert algorithm.nfe() == 4
    assert algorithm.execution == ("centralised" if joint else "decentralised")


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_a_central_critic_values_the_joint_action_at_the_joint_observation(mac_flow, make_batch, space):
    algorithm = mac_flow(space=space, **MACFlow.variants["central_q"])
    batch = make_batch(algorithm.spec)
    weights = algorithm.weights(batch.actions)
    value = algorithm.nets["critic"](batch.obs, weights)
    assert value.shape == (2, 2, 8, 1, 1)
    moved = weights.clone().requires_grad_()
    algorithm.nets["critic"](batch.obs, moved)[0, 0, 0].sum().backward()
    assert (moved.grad[0, 0].abs().amax(-1) > 0).all()  # every agent's action counts
    assert moved.grad[0, 1:].abs().max() == moved.grad[1].abs().max() == 0  # and no other transition's


@pytest.mark.parametrize("space", ["discrete", "continuous"])
@pytest.mark.parametrize("mixer", ["mean", "none"])
def test_a_central_critics_error_is_the_teams(mac_flow, make_batch, space, mixer):
    algorithm = mac_flow(space=space, discount=0.5, critic="central", mixer=mixer)
    batch = make_batch(algorithm.spec)
    for name, constant in (("critic", 3.0), ("target_critic", 8.0)):
        last = algorithm.nets[name].mlp.layers[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, constant)
    target = batch.rewards.mean(-1) + 0.5 * (1 - batch.done) * 8.0
    assert_close(algorithm.losses(batch)["critic"], 2 * (3.0 - target).pow(2).mean(1))


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_a_central_critics_guidance_moves_the_policy_and_nothing_else(mac_flow, make_batch, space):
    algorithm = mac_flow(space=space, **MACFlow.variants["central_q"])
    moved = moved_by(algorithm, make_batch(algorithm.spec), "q")
    assert moved.pop("policy") > 1e-4
    assert set(moved.values()) == {0.0}


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_a_policy_acts_from_its_own_noise_within_the_bounds(mac_flow, look, space):
    algorithm = mac_flow(space=space, action_scale=0.5)
    obs, legal = look(algorithm.spec)
    noise = torch.randn(*obs.shape[:-1], 4)
    algorithm.acting_noise = lambda *shape: noise.view(2, *shape)
    out = algorithm.nets["policy"](obs, noise)
    expected = out.masked_fill(~legal, -1e9).argmax(-1) if legal is not None else (out / 0.5).clamp(-1, 1)
    assert torch.equal(algorithm.act(obs, legal)[0], expected)
    assert algorithm.nfe() == 1


@pytest.mark.parametrize("critic", ["individual", "central"])
@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_reported_value_is_the_mean_of_the_twins_at_the_datas_actions(mac_flow, make_batch, space, critic):
    algorithm = mac_flow(space=space, critic=critic)
    batch, net = make_batch(algorithm.spec), algorithm.nets["critic"]
    weights = F.one_hot(batch.actions, 4).float() if space == "discrete" else batch.actions
    with torch.no_grad():
        tabular = space == "discrete" and critic == "individual"
        values = (net(batch.obs) * weights[:, None]).sum(-1) if tabular else net(batch.obs, weights)
    assert_close(algorithm.mean_value(batch), values.flatten(1).mean(1))
