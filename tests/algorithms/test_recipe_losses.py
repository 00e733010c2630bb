"""Every loss of the recipe written out, for all of its settings; in double precision, by which guards count, too."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Categorical, Normal
from torch.testing import assert_close

from offmarl.algorithms.recipe import Config, Recipe

GUARD = 1e-6  # added to what is divided by


@pytest.fixture
def build(make_spec, make_batch):
    def make(space, **over):
        """A recipe and a batch in double precision, with targets unlike the networks and actions beyond the bounds."""
        config = Config(**{"hidden": (16, 16), "mixer_hidden": 16, "discount": 0.9, "expectile": 0.75, **over})
        algorithm = Recipe(make_spec(space), config, (3, 5))
        algorithm.nets.double()
        with torch.no_grad():
            for parameter in algorithm.nets.parameters():
                parameter += 0.5 * torch.randn_like(parameter)
        batch = make_batch(algorithm.spec)
        doubles = {n: x.double() for n, x in batch._asdict().items() if x is not None and x.is_floating_point()}
        return algorithm, batch._replace(**doubles)

    return make


def per_seed(values):
    """The means of two seeds."""
    return torch.stack([one.mean() for one in values])


def unit(values):
    """How far each seed's values lie from their mean, on average."""
    return torch.stack([(one - one.mean()).abs().mean() + GUARD for one in values.detach()]).view(2, 1, 1)


class WrittenOut:
    """The losses, and what they are made of, from the outputs of the networks."""

    def __init__(self, algorithm, batch):
        self.nets, self.config, self.batch = SimpleNamespace(**algorithm.nets), algorithm.config, batch
        self.discrete, self.out = algorithm.spec.discrete, self.nets.policy(batch.obs)

    def lesser(self, net, obs, actions):
        return torch.minimum(*self.twins(net, obs, actions).unbind(1))

    def twins(self, net, obs, actions):
        if not self.discrete:
            return net(obs, actions).squeeze(-1)
        return (net(obs) * torch.nn.functional.one_hot(actions, 4)[:, None]).sum(-1)

    def team(self, values, mixer="mixer"):
        """Of one value of each agent [2,8,3] in the states of the batch."""
        if self.config.mixer == "state":
            return getattr(self.nets, mixer)(values[:, None], self.batch.state).squeeze(1)
        one, two, three = values.split(1, -1)
        return {"none": values, "sum": one + two + three, "mean": (one + two + three) / 3}[self.config.mixer]

    def greedy(self, obs, legal):
        out = self.nets.policy(obs)
        if self.discrete:
            return (out.softmax(-1) * legal).argmax(-1)
        assert (out > 1).any() and (out < -1).any()
        return torch.where(out.abs() > 1, out.sign(), out)

    def log_density(self):
        if self.discrete:
            return Categorical(logits=self.out.masked_fill(~self.batch.legal, -torch.inf)).log_prob(self.batch.actions)
        return (Normal(self.out, 1.0).log_prob(self.batch.actions) + 0.5 * math.log(2 * math.pi)).sum(-1)

    def target(self):
        batch, lasts = self.batch, 0.9 * (1 - self.batch.done)[..., None]
        if self.config.values == "iql":
            return self.team(batch.rewards + lasts * self.nets.value(batch.next_obs).squeeze(-1), "target_mixer")
        following = batch.next_actions
        if self.config.values == "td":
            following = self.greedy(batch.next_obs, batch.next_legal)
        if self.config.mixer != "state":
            return self.team(batch.rewards + lasts * self.lesser(self.nets.target_critic, batch.next_obs, following))
        twins = self.twins(self.nets.target_critic, batch.next_obs, following)
        one, two = (self.nets.target_mixer(twins[:, k : k + 1], batch.next_state).squeeze(1) for k in (0, 1))
        return batch.rewards.sum(-1, keepdim=True) + lasts * torch.minimum(one, two)

    def critic(self):
        twins, target = self.twins(self.nets.critic, self.batch.obs, self.batch.actions), self.target().detach()
        one, two = (self.team(each) for each in twins.unbind(1))
        if not self.config.svn:
            return (per_seed((one - target) ** 2) + per_seed((two - target) ** 2)) / 4
        lesser = torch.minimum(one, two)
        return per_seed(((lesser - target) / unit(lesser)) ** 2) / 2

    def value(self):
        q = self.lesser(self.nets.target_critic, self.batch.obs, self.batch.actions)
        q, v = (self.team(x, "target_mixer") for x in (q, self.nets.value(self.batch.obs).squeeze(-1)))
        errors = ((q - v) / (unit(q) if self.config.svn else 1)).flatten(1)
        above, below = ((sign * errors).clamp(min=0) ** 2 for sign in (1, -1))
        return per_seed(self.config.expectile * above + (1 - self.config.expectile) * below)

    def weights(self):
        batch, q = self.batch, self.lesser(self.nets.critic, self.batch.obs, self.batch.actions)
        if self.config.values == "iql":
            advantage = self.team(q) - self.team(self.nets.value(batch.obs).squeeze(-1))
        else:
            advantage = q - self.lesser(self.nets.critic, batch.obs, self.greedy(batch.obs, batch.legal))
        weights = []
        for one in advantage.detach():
            z = (one - one.mean()) / (one.std(correction=0) + GUARD)
            weights.append((self.config.inverse_temperature * z).exp().clamp(max=100.0))
        return torch.stack(weights)

    def policy(self):
        return -per_seed(self.weights() * self.log_density())

    def cloning(self):
        error = -self.log_density() if self.discrete else (self.out - self.batch.actions) ** 2
        return self.config.bc_weight * per_seed(error)

    def q(self):
        if self.discrete:
            odds = torch.exp(self.out) * self.batch.legal
            values = torch.minimum(*self.nets.critic(self.batch.obs).unbind(1))
            guided = (odds * values).sum(-1) / odds.sum(-1)
        else:
            guided = self.lesser(self.nets.critic, self.batch.obs, self.out)
        return -per_seed(guided) / (per_seed(guided.detach().abs()) + GUARD)


CHOICES = itertools.product(
    ["td", "sarsa", "iql"],
    ["state", "none", "mean", "sum"],
    ["brac", "awr"],
    [True, False],
    ["discrete", "continuous"],
)


@pytest.mark.parametrize(("values", "mixer", "extraction", "svn", "space"), list(CHOICES))
def test_every_choice_has_the_losses_written_out_and_their_gradients(build, values, mixer, extraction, svn, space):
    over = {"values": values, "mixer": mixer, "extraction": extraction, "svn": svn}
    algorithm, batch = build(space, **over, bc_weight=0.3, inverse_temperature=2.0)
    losses, written = algorithm.losses(batch), WrittenOut(algorithm, batch)
    own = {"critic": {"critic", "mixer"}, "value": {"value"}}  # the others are the policy's
    expected = {"critic", *(["value"] if values == "iql" else []), *(["policy"] if extraction == "awr" else [])}
    assert losses.keys() == expected | ({"cloning", "q"} if extraction == "brac" else set())
    for term, loss in losses.items():
        by_hand = getattr(written, term)()
        assert_close(loss, by_hand, msg=lambda words, term=term: f"{term}: {words}")
        for name, net in algorithm.nets.items():
            weights = [p for p in net.parameters() if p.requires_grad]
            if not weights:
                continue
            slopes = torch.autograd.grad(loss.sum(), weights, retain_graph=True, materialize_grads=True)
            if name in own.get(term, {"policy"}):
                right = torch.autograd.grad(by_hand.sum(), weights, retain_graph=True, materialize_grads=True)
            else:
                right = [torch.zeros_like(p) for p in weights]
            assert_close(slopes, tuple(right), msg=lambda words, term=term, name=name: f"{term}, {name}: {words}")


def test_values_far_below_the_guard_move_no_policy(build, set_value):
    for space, outputs in (("discrete", 4), ("continuous", 1)):
        algorithm, batch = build(space)
        for value, expected in ((1e-6, -0.5), (-1e-6, 0.5), (1e-9, -1e-3)):
            set_value(algorithm.nets["critic"], torch.full((outputs,), value))
            assert algorithm.policy_losses(batch)["q"].tolist() == pytest.approx([expected] * 2, rel=1e-2)


def test_awrs_weights_lie_between_e_to_minus_50_and_100(build):
    algorithm, batch = build("continuous", mixer="none", extraction="awr", inverse_temperature=1e3)
    weights = algorithm.weights(batch).flatten(1)
    assert weights.amax(1).tolist() == [100.0, 100.0]
    assert weights.amin(1).tolist() == pytest.approx([math.exp(-50)] * 2, rel=1e-9, abs=0)


def test_continuous_actions_are_the_policys_mean_within_the_bounds(build, set_value):
    algorithm, batch = build("continuous")
    set_value(algorithm.nets["policy"], torch.tensor([-3.0, 3.0, 0.5, -0.25]))
    actions, memory = algorithm.act(batch.obs)
    assert memory is None
    assert (actions == torch.tensor([-1.0, 1.0, 0.5, -0.25])).all()


@pytest.mark.parametrize("policy_norm", [True, False])
def test_layers_of_critics_and_values_are_normalised_and_those_of_the_policy_by_choice(build, policy_norm):
    for space in ("discrete", "continuous"):
        algorithm, batch = build(space, values="iql", policy_norm=policy_norm)
        normalised = {name for name, net in algorithm.nets.items() if getattr(net, "mlp", None) and net.mlp.norms}
        assert normalised == {"critic", "target_critic", "value", *(["policy"] if policy_norm else [])}
        assert algorithm.nets["value"](batch.obs).shape == (2, 8, 3, 1)
