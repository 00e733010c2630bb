"""What every method promises about training and saving. A new file in algorithms/ is tested here without a change."""

import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.parts.algorithm import LARGEST_Q
from offmarl.algorithms.parts.batch import Batch
from offmarl.algorithms.parts.nets import MLP

SEEDS = (3, 5)


def nets_of(algorithm):
    return {name: value.clone() for name, value in algorithm.nets.state_dict().items()}


def by_seed(algorithm, k):
    """Parameters of the k-th seed."""
    seeds = len(algorithm.seeds)
    return {n: p.detach().unflatten(0, (seeds, -1))[k].clone() for n, p in algorithm.nets.named_parameters()}


def test_losses_are_finite_and_one_for_each_seed(build, batch):
    algorithm = build()
    for draw in range(3):
        losses = algorithm.update(batch(draw))
        assert losses
        for name, value in losses.items():
            assert value.shape == (len(SEEDS),) and value.isfinite().all() and not value.requires_grad, name


def test_every_trainable_tensor_of_every_seed_moves(build, batch, train):
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


def test_multiplying_known_inputs_once_changes_no_action_loss_or_gradient(build, batch, views, monkeypatch):
    def outcome():
        algorithm, (obs, legal) = build(), views
        losses = algorithm.losses(Batch(*map(doubled, batch())))
        trained = [p for p in algorithm.nets.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(sum(value.sum() for value in losses.values()), trained, allow_unused=True)
        return algorithm.act(obs.double(), legal)[0], losses, [slope for slope in slopes if slope is not None]

    def doubled(x):
        return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # so that rounding hides nothing
    torch.set_default_dtype(torch.float64)
    try:
        once = outcome()
        monkeypatch.setattr(MLP, "given", lambda net, known: lambda x: net(torch.cat([known, x], -1)))
        assert_close(once, outcome(), rtol=1e-9, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_optimiser_holds_the_trainable_parameters_and_nothing_else(build):
    algorithm = build()
    held = [id(p) for p in algorithm.optimiser.parameters]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in algorithm.nets.parameters() if p.requires_grad}


def test_the_optimiser_obeys_the_settings(build):
    algorithm = build(learning_rate=7e-4, adam_epsilon=3e-6)
    assert float(algorithm.rates[7e-4]) == pytest.approx(7e-4) and algorithm.optimiser.epsilon == 3e-6


def test_the_learning_rate_decays_to_zero_in_decay_steps(build, batch):
    algorithm, rates = build(decay_steps=4, learning_rate=0.01), []
    for draw in range(6):
        before = [p.detach().clone() for p in algorithm.nets.parameters() if p.requires_grad]
        algorithm.update(batch(draw))
        rates.append(float(algorithm.rates[0.01]))
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0, 0])
    after = [p for p in algorithm.nets.parameters() if p.requires_grad]
    assert all(torch.equal(p, q) for p, q in zip(before, after))


def test_gradients_are_clipped_to_max_grad_norm(build, batch):
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


def test_the_largest_q_is_a_metric_of_every_seed(build, batch):
    algorithm = build()
    metrics = algorithm.update(batch())
    assert (LARGEST_Q in metrics) == ("critic" in algorithm.nets)
    if "critic" in algorithm.nets:
        assert metrics[LARGEST_Q].shape == (len(SEEDS),) and (metrics[LARGEST_Q] > 0).all()


def test_target_networks_start_as_copies_and_get_no_gradient(build, batch, assert_same):
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


def test_same_seed_same_numbers(build, batch, views, assert_same, train):
    one, other = (train(build(), [batch(draw) for draw in range(3)]) for _ in range(2))
    assert_same(nets_of(one), nets_of(other))
    assert torch.equal(one.act(*views)[0], other.act(*views)[0])


def test_different_seeds_start_differently(build):
    algorithm = build()
    one, other = (by_seed(algorithm, k) for k in range(2))
    weights = [name for name, value in one.items() if name.endswith("weight") and value.unique().numel() > 1]
    assert weights
    assert not any(torch.equal(one[name], other[name]) for name in weights)


def test_a_seed_starts_the_same_whichever_seeds_train_with_it(build, assert_same):
    together = build()
    for k, seed in enumerate(SEEDS):
        assert_same(together.seed_state(k), build([seed]).seed_state(0))


def test_a_seed_learns_the_same_whichever_seeds_train_with_it(build, batch, train):
    # One Adam for every variant: with a tiny epsilon it blows up the last bit of a vanishing gradient.
    over = {"adam_epsilon": 1e-5, "learning_rate": 3e-4}
    together = train(build(**over), [batch(draw) for draw in range(4)])
    start = build(**over)
    for k, seed in enumerate(SEEDS):
        alone = train(build([seed], **over), [batch(draw, [seed]) for draw in range(4)]).seed_state(0)
        for name, value in together.seed_state(k).items():
            assert_close(value, alone[name], rtol=1e-5, atol=2e-6, msg=lambda m, name=name: f"{name}: {m}")
        before = start.seed_state(k)
        drift = [(v - before[n]).abs().max() for n, v in alone.items() if v.is_floating_point()]
        assert max(drift) > 5e-4  # the tolerance is small against what four updates change


def test_the_order_of_seeds_does_not_matter(build, assert_same):
    one, other = build([3, 5, 8]), build([8, 3, 5])
    for k, j in enumerate((1, 2, 0)):
        assert_same(one.seed_state(k), other.seed_state(j))


def test_seeds_do_not_mix(build, batch, assert_same):
    one, other = build(), build()
    for draw in range(3):
        mine, theirs = batch(draw), batch(draw + 100)
        swapped = [
            None if a is None else torch.stack([b[0], a[1]]) for a, b in zip(mine, theirs)
        ]  # another batch for the first seed, the same for the second
        one.update(mine)
        other.update(Batch(*swapped))
    assert_same(by_seed(one, 1), by_seed(other, 1))
    first, second = by_seed(one, 0), by_seed(other, 0)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_acting_does_not_disturb_training(build, batch, views, assert_same):
    quiet, busy = build(), build()
    for draw in range(2):
        quiet.update(batch(draw))
        busy.act(*views)
        busy.update(batch(draw))
        busy.act(*views)
    assert_same(nets_of(quiet), nets_of(busy))


def test_save_load_continue_equals_uninterrupted(build, batch, views, through_disk, assert_same, train):
    decay = 5  # the learning rate's place is a part of the state
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


def test_a_seed_loaded_alone_acts_as_it_did_among_others(build, batch, views, through_disk, assert_same, train):
    together = train(build(play="zero"), [batch(draw) for draw in range(2)])
    obs, legal = views
    actions, _ = together.act(obs, legal)
    for k, seed in enumerate(SEEDS):
        alone = build([seed], play="zero")
        alone.load_nets(through_disk(together.seed_state(k)))
        assert_same(alone.seed_state(0), together.seed_state(k))
        again, _ = alone.act(obs[k : k + 1], None if legal is None else legal[k : k + 1])
        assert_close(again[0], actions[k], rtol=0, atol=1e-4)  # round-off, which a chain of calls enlarges
    assert not torch.equal(*(together.act(obs[:1].expand_as(obs), None)[0]))  # the seeds differ


def test_parameters_counts_one_seed(build):
    many, one = build(), build([3])
    assert many.parameters() == one.parameters() > 0
    assert one.parameters() == sum(p.numel() for p in one.optimiser.parameters)


def test_a_critic_tells_its_mean_value_of_the_datas_actions(build, batch, train):
    algorithm = train(build(), [batch()])
    state = algorithm.state_dict()["streams"]
    value = algorithm.mean_value(batch())
    assert (value is None) == ("critic" not in algorithm.nets)
    if value is not None:
        assert value.shape == (2,) and value.isfinite().all() and not value.requires_grad
        assert torch.allclose(value[1:], algorithm.mean_value(batch())[1:])
    assert all(map(torch.equal, state, algorithm.state_dict()["streams"]))
