import pytest
import torch
from torch.testing import assert_close

from offmarl.algorithms.dof import DoF
from offmarl.algorithms.madiff_c import MADiffC
from offmarl.algorithms.madiff_d import MADiffD
from offmarl.algorithms.parts.returns import returns_to_go
from offmarl.algorithms.parts.unet import UNet


@pytest.fixture
def build(make_spec, make_data, small_planner):
    def make(cls=MADiffD, space="discrete", fit=True, **over):
        spec = make_spec(space)
        algorithm = cls(spec, cls.Config(**{**small_planner, "diffusion_steps": 5, **over}), [3, 5])
        if fit:
            algorithm.prepare(make_data(spec))
        return algorithm

    return make


def shake(algorithm):
    """Away from the initialisation, where attention is shut."""
    with torch.no_grad():
        for parameter in algorithm.nets.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return algorithm


# Views


def test_a_madiff_d_agent_sees_itself_and_a_madiff_c_agent_everybody(build):
    assert torch.equal(build(MADiffD).view, torch.eye(3, dtype=torch.bool))
    assert torch.equal(build(MADiffC).view, torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(build(DoF).view, torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(build(DoF, rows="all").view, torch.eye(3, dtype=torch.bool))


@pytest.mark.parametrize("cls", [MADiffD, MADiffC, DoF])
def test_what_is_known_is_held_in_every_call(build, cls, calls_of):
    """The seen agents' past and present, and zeros for the past of the others; all the rest is open."""
    algorithm = build(cls)
    memory = torch.rand(2, 4, 3, 3, 8)  # [S, E, history + 1, I, N]
    calls = calls_of(algorithm.nets["ema_denoiser"])
    algorithm.plan(memory)
    assert len(calls) == 5
    V = len(algorithm.view)
    for x, *_ in calls:
        x = x.view(2, 2, 4, V, 3, 4, 8)  # [S, pass, E, V, I, T, N]
        for v in range(V):
            for i in range(3):
                seen, row = bool(algorithm.view[v, i]), x[:, :, :, v, i]
                truth = memory[:, None, :, :, i] * seen
                assert torch.equal(row[..., : 2 + seen, :], truth[..., : 2 + seen, :].expand(-1, 2, -1, -1, -1))
                assert not torch.equal(row[..., 2 + seen :, :], torch.zeros_like(row[..., 2 + seen :, :]))


def test_an_agents_plan_is_its_own_row_of_its_own_view(build, monkeypatch):
    algorithm = build(MADiffD, space="continuous")

    def marked(x, time, wanted):  # noise that leads every row to its own number
        data = torch.arange(x.shape[1]).view(1, -1, 1, 1).expand_as(x) / 100
        abar = algorithm.abar[time]
        return (x - abar.sqrt() * data) / (1 - abar).sqrt()

    monkeypatch.setattr(algorithm, "guided", marked)
    plan = algorithm.plan(torch.zeros(2, 2, 3, 3, 8))
    own = torch.tensor([[0, 4, 8], [9, 13, 17]]) / 100  # row of (episode, view i, agent i)
    assert_close(plan, own[None, :, :, None].expand_as(plan), atol=1e-3, rtol=0)


# Training


@pytest.mark.parametrize("predicts", ["noise", "start"])
@pytest.mark.parametrize("cls", [MADiffD, MADiffC, DoF])
def test_the_loss_counts_what_a_view_leaves_open_and_nothing_else(build, make_batch, cls, predicts, calls_of):
    algorithm = build(cls, predicts=predicts)
    batch = make_batch(algorithm.spec, window=algorithm.config.window, size=64)
    seen = calls_of(algorithm.nets["denoiser"])
    loss = algorithm.losses(batch)["denoiser"]
    x, time, returns, keep, found = seen[0]
    x, found = (part.view(2, 64, 3, 4, 8) for part in (x, found))
    truth = algorithm.with_ids(batch.window).transpose(2, 3)
    assert (time.view(2, 64, 3) == time.view(2, 64, 3)[..., :1]).all()
    abar = algorithm.abar[time.view(2, 64, 3)][..., None, None]
    noise = (x - abar.sqrt() * truth) / (1 - abar).sqrt()
    held = (x == truth).all(-1)  # [S, B, I, T]
    zero = (x == 0).all(-1)
    eyes = held[..., 2]
    assert (eyes.sum(-1) == (1 if cls is MADiffD else 3)).all()
    assert torch.equal(held[..., :2], eyes[..., None].expand(-1, -1, -1, 2)) and not held[..., 3].any()
    assert torch.equal(zero[..., :2], ~eyes[..., None].expand(-1, -1, -1, 2)) and not zero[..., 2:].any()
    open_slots = ~(held | zero)
    error = (found - (noise if predicts == "noise" else truth)).square().mean(-1)
    expected = torch.stack([torch.stack([e[m].mean() for e, m in zip(*each)]) for each in zip(error, open_slots)])
    assert_close(loss, 0.5 * expected.mean(1), rtol=1e-3, atol=1e-4)
    assert keep.mean().item() == pytest.approx(0.75, abs=0.08)
    wanted = torch.stack([kept[number] for kept, number in zip(algorithm.returns, batch.number)])
    assert torch.equal(returns.view(2, 64, 3), wanted) and wanted.unique().numel() > 64


def test_inverse_dynamics_recover_the_actions_behind_a_change(build, make_batch):
    """Observations that move by the action: as good as told."""
    algorithm = build(space="continuous", fit=False, learning_rate=3e-3, hidden=(64,))
    algorithm.returns = torch.zeros(2, 40, 3)
    for draw in range(150):
        batch = make_batch(algorithm.spec, window=algorithm.config.window, size=64, draw=draw)
        step = torch.nn.functional.pad(batch.actions, (0, 1))
        losses = algorithm.update(batch._replace(next_obs=batch.obs + step))
    assert (losses["inverse"] < 0.02).all()  # half the mean square; 0.17 if nothing is learnt


def test_the_average_copies_first_and_then_follows_slowly(build, make_batch):
    algorithm = build(ema_start=20, ema_period=5, ema=0.9)
    weights = [
        [
            net.state_dict()["head.1.weight"].clone()
            for net in (algorithm.nets["denoiser"], algorithm.nets["ema_denoiser"])
        ]
    ]
    for update in range(1, 31):
        algorithm.update(make_batch(algorithm.spec, window=algorithm.config.window, draw=update))
        now, average = (algorithm.nets[n].state_dict()["head.1.weight"].clone() for n in ("denoiser", "ema_denoiser"))
        before = weights[-1][1]
        expected = before if update % 5 else now if update < 20 else torch.lerp(before, now, 0.1)
        assert_close(average, expected)
        weights.append([now, average])


# Acting


def test_memory_is_the_last_observations_and_at_first_the_first(build):
    algorithm = build()
    seen = [2 * torch.rand(2, 4, 3, 5) - 1 for _ in range(5)]
    memory, slots = None, [algorithm.with_ids(algorithm.obs_range.encode(obs)) for obs in seen]
    for k, obs in enumerate(seen):
        _, memory = algorithm.act(obs, None, memory)
        assert torch.equal(memory, torch.stack([slots[max(0, k - back)] for back in (2, 1, 0)], 2))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_plan_is_the_same_whether_the_network_tells_the_noise_or_the_clean_window(build, monkeypatch, sampler):
    """Both are told what the data are; the chain has to come out there, from any noise."""
    data, plans = 0.9 * (2 * torch.rand(2, 2 * 3 * 3, 4, 8) - 1), []
    for predicts in ("noise", "start"):
        algorithm = build(predicts=predicts, sampler=sampler, ddim_calls=3)

        def told(x, time, _, abars=algorithm.abar, predicts=predicts):
            return data if predicts == "start" else (x - abars[time].sqrt() * data) / (1 - abars[time]).sqrt()

        monkeypatch.setattr(algorithm, "guided", told)
        plans.append(algorithm.plan(torch.zeros(2, 2, 3, 3, 8)))
    assert_close(plans[0], plans[1], atol=1e-4, rtol=0)
    assert_close(plans[1], data.view(2, 2, 3, 3, 4, 8)[:, :, range(3), range(3), 3], atol=1e-4, rtol=0)  # its own view


def test_a_denoiser_narrower_than_an_observation_learns_the_clean_window_but_not_the_noise(build, make_batch):
    """Of windows that all agree, the one is a constant; the other cannot pass through fewer channels."""
    errors = {}
    for predicts in ("noise", "start"):
        algorithm = build(MADiffC, predicts=predicts, fit=False, learning_rate=3e-3, width=4)
        algorithm.returns, window = torch.zeros(2, 40, 3), algorithm.config.window
        for draw in range(200):
            batch = make_batch(algorithm.spec, window=window, size=64, draw=draw)
            losses = algorithm.update(batch._replace(window=torch.full_like(batch.window, 0.5)))
        errors[predicts] = losses["denoiser"]
    assert (errors["start"] < 0.05).all() and (errors["noise"] > 0.1).all()  # half a mean square; 0.5 of pure guesses


def test_guidance_goes_beyond_the_conditioned_noise(build):
    algorithm = shake(build(guidance=1.2))
    x, time, wanted = torch.randn(2, 6, 4, 8), torch.tensor(3), torch.ones(2, 6)
    net, t = algorithm.nets["ema_denoiser"], torch.full((2, 6), 3)
    conditioned, null = net(x, t, wanted, torch.ones(2, 6)), net(x, t, wanted, torch.zeros(2, 6))
    assert_close(algorithm.guided(x, time, wanted), null + 1.2 * (conditioned - null))
    plain = build(guidance=1.0)
    plain.load_nets(algorithm.nets.state_dict())
    assert_close(plain.guided(x, time, wanted), conditioned)
    assert ((conditioned - null).abs().amax((2, 3)) > 1e-5).all()  # the null pass differs with certainty


def test_the_target_return_is_the_largest_of_the_data_unless_it_is_set(build, calls_of):
    algorithm = build()
    assert algorithm.config.target_return == 1 and algorithm.returns.amax() == pytest.approx(1, abs=1e-6)
    calls = calls_of(algorithm.nets["ema_denoiser"])
    algorithm.act(torch.randn(2, 1, 3, 5))
    assert all((wanted == 1).all() for _, _, wanted, *_ in calls)


# DoF


def test_the_weights_of_dof_scale_each_agents_noise_by_its_share(build):
    algorithm = build(DoF)
    net = algorithm.nets["denoiser"]
    args = (torch.randn(2, 6, 4, 8), torch.zeros(2, 6).long(), torch.ones(2, 6), torch.ones(2, 6))
    even = net(*args)
    with torch.no_grad():
        net.weights.copy_(torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]]))
    scale = torch.tensor([1 / 8, 2 / 8, 5 / 8]).repeat(2)[:, None, None] * 3
    assert_close(net(*args), torch.stack([even[0] * scale, even[1]]))


@pytest.mark.parametrize("null_pass", ["hidden", "dropout"])
def test_the_released_null_pass_is_mostly_none(build, null_pass, calls_of):
    """Three in four of its rows are the conditioned pass again, as measured on the official class."""
    algorithm = build(DoF, null_pass=null_pass)
    calls = calls_of(algorithm.nets["ema_denoiser"])
    algorithm.act(torch.randn(2, 400, 3, 5))
    for _, _, _, keep, _ in calls:
        conditioned, null = keep.chunk(2, 1)
        assert (conditioned == 1).all()
        assert null.mean().item() == pytest.approx(0.75 if null_pass == "dropout" else 0, abs=0.03)


def test_released_dof_denoises_every_row_for_every_agent(build, calls_of):
    rows = {}
    for released in (False, True):
        algorithm = build(DoF, **(DoF.variants["released"] if released else {}))
        calls = calls_of(algorithm.nets["ema_denoiser"])
        algorithm.act(torch.randn(2, 1, 3, 5))
        rows[released] = {x.shape[1] for x, *_ in calls}
    assert rows == {False: {2 * 3}, True: {2 * 9}}


# Settings


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"history": 3}, "multiple of 2"), ({"horizon": 1, "history": 1}, "horizon"), ({"width": 6}, "width=6")],
)
def test_windows_and_widths_that_do_not_fit_are_refused(wrong, words, small_planner):
    with pytest.raises(ValueError, match=words):
        MADiffD.Config(**{**small_planner, **wrong})


# Returns


def test_a_scale_makes_its_return_one_and_the_datas_range_is_from_minus_one_to_one(build, make_data, make_spec):
    data = make_data(make_spec("discrete"))
    scaled, ranged = build(return_scale=4.0), build()
    ranged_values = ranged.returns
    assert (ranged_values.min(), ranged_values.max()) == (pytest.approx(-1, abs=1e-5), pytest.approx(1, abs=1e-5))
    returns = returns_to_go(data.rewards, data.last, 0.99)
    assert_close(scaled.returns, (returns / 4).expand(2, -1, -1))
    assert_close(ranged.return_range.decode(ranged_values), returns.expand(2, -1, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cls", [MADiffD, MADiffC, DoF])
def test_the_return_that_is_asked_for_falls_by_the_rewards(build, cls, calls_of):
    """MADiff's rule: (scale target - reward) / discount, in the agent's own view; without `return_to_go` it stays."""
    rewards = torch.arange(24.0).view(2, 4, 3) / 10
    for lowers in (True, False):
        algorithm = build(cls, return_to_go=lowers, return_scale=5.0, target_return=0.8, discount=0.9)
        seen = calls_of(algorithm.nets["ema_denoiser"])
        obs, memory = torch.rand(2, 4, 3, 5), None
        for _ in range(2):
            seen.clear()
            _, memory = algorithm.act(obs, None, memory)
            last = memory
            memory = algorithm.rewarded(memory, rewards)
        assert torch.equal(last[:, :, -1], memory[:, :, -1]) != lowers
        V = len(algorithm.view)
        asked = seen[0][2].chunk(2, 1)[0].view(2, 4, V, 3)  # of the conditioned pass
        expected = (0.8 * 5 - rewards) / 0.9 / 5 if lowers else torch.full_like(rewards, 0.8)
        for v in range(V):
            assert_close(asked[:, :, v], expected[..., v : v + 1].expand(-1, -1, 3) if V > 1 else expected)


def test_inverse_dynamics_may_be_separate(build):
    together, apart = build(), build(share_parameters=False)
    assert together.nets["inverse"].mlp.groups == 2 and apart.nets["inverse"].mlp.groups == 2 * 3
    assert together.nets["denoiser"].state_dict().keys() == apart.nets["denoiser"].state_dict().keys()


@pytest.mark.parametrize("space", ["discrete", "continuous"])
def test_the_inverse_dynamics_loss_written_out(build, make_batch, space):
    """Half the mean square, or half the cross-entropy over legal actions, of both observations with their ids."""
    algorithm = build(space=space)
    batch = make_batch(algorithm.spec)
    ids = torch.eye(3).expand(2, 8, 3, 3)
    with torch.no_grad():
        out = algorithm.nets["inverse"](torch.cat([batch.obs, ids], -1), torch.cat([batch.next_obs, ids], -1))
        if space == "continuous":
            expected = 0.5 * (out - batch.actions).pow(2).mean((1, 2, 3))
        else:
            odds = out.exp() * batch.legal
            chosen = odds.gather(-1, batch.actions[..., None])[..., 0] / odds.sum(-1)
            expected = -0.5 * chosen.log().mean((1, 2))
    assert_close(algorithm.inverse_loss(batch).detach(), expected)


def test_a_chain_starts_and_goes_on_at_temperatures_of_their_own(build):
    algorithm = build(start_temperature=0.25, step_temperature=3.0)
    seen, draws = [], torch.randn(6, 2, 2, 9, 4, 8)
    algorithm.acting_noise = lambda *shape, call: draws[call].view(2, *shape)
    algorithm.guided = lambda x, time, returns: seen.append(x) or torch.zeros_like(x)
    algorithm.plan(torch.zeros(2, 2, 3, 3, 8))
    chain, x = algorithm.chain, 0.25 * draws[5].flatten(1, 2)
    free = (slice(None), slice(None), 3)  # a future slot
    for k in range(5):
        assert_close(seen[k][free], x[free])
        data = (chain.scale[k] * x).clamp(-1, 1)
        x = chain.from_data[k] * data + chain.from_x[k] * x + chain.deviation[k] * 3.0 * draws[k].flatten(1, 2)


def test_dofs_shares_sum_to_one_and_an_agent_alone_keeps_its_own(build):
    net = build(DoF).nets["denoiser"]
    args = (torch.randn(2, 3, 4, 8), torch.zeros(2, 3).long(), torch.ones(2, 3), torch.ones(2, 3))
    with torch.no_grad():
        net.weights.copy_(torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]))
    share = torch.tensor([[0.125, 0.25, 0.625], [0.25, 0.25, 0.5]])[..., None, None]
    assert_close(net(*args), UNet.forward(net, *args) * share)
    net.keep_agent(1)
    alone = [part[:, 1:2].repeat_interleave(2, 1) for part in args]  # two episodes of one agent
    assert_close(net(*alone), UNet.forward(net, *alone) * share[:, 1:2])


def test_the_released_null_pass_has_a_draw_of_its_own(build):
    algorithm, calls = build(DoF, null_pass="dropout"), []
    noise = algorithm.acting_noise
    algorithm.acting_noise = lambda *shape, call: calls.append((len(shape), call)) or noise(*shape, call=call)
    algorithm.act(torch.randn(2, 4, 3, 5))
    chain, null = ({call for size, call in calls if (size > 1) == many} for many in (True, False))
    assert chain == set(range(6)) and len(null) == 1 and not chain & null


def test_inverse_dynamics_see_now_and_what_the_plan_has_next(build, monkeypatch, calls_of):
    algorithm, memory = build(), None
    seen, ends = calls_of(algorithm.nets["inverse"]), torch.rand(2, 4, 3, 8)
    monkeypatch.setattr(algorithm, "plan", lambda *_: ends)
    for _ in range(3):
        obs = torch.rand(2, 4, 3, 5)
        _, memory = algorithm.act(obs, None, memory)
    assert_close(seen[-1][0], algorithm.with_ids(algorithm.obs_range.encode(obs)))
    assert seen[-1][1] is ends


def test_a_plan_is_asked_for_the_return_of_now_alone(build, monkeypatch):
    algorithm, asked = build(return_to_go=True, return_scale=10.0), []
    monkeypatch.setattr(algorithm, "plan", lambda memory, wanted: asked.append(wanted) or memory[:, :, -1])
    memory = None
    for k in range(3):
        _, memory = algorithm.act(torch.rand(2, 4, 3, 5), None, memory)
        memory = algorithm.rewarded(memory, torch.full((2, 4, 3), float(k + 1)))
    left = [1.0]
    for reward in (1.0, 2.0):
        left.append((10 * left[-1] - reward) / algorithm.config.discount / 10)
    assert_close(torch.stack(asked)[:, 0, 0, 0], torch.tensor(left))


def test_without_guidance_a_decision_calls_on_its_own_rows_alone(build, calls_of):
    for guidance, passes in ((1.0, 1), (2.0, 2)):
        algorithm = build(guidance=guidance)
        calls = calls_of(algorithm.nets["ema_denoiser"])
        algorithm.plan(torch.rand(2, 4, 3, 3, 8))
        assert {call[0].shape[1] for call in calls} == {passes * 4 * 3 * 3}


def test_a_denoiser_of_clean_windows_is_told_among_the_reductions():
    assert MADiffD.Config(predicts="start").reduced() == {"predicts": "start"} and not MADiffD.Config().reduced()


def test_a_window_counts_history_and_horizon_together():
    config = MADiffD.Config(history=3, horizon=5, multipliers=(1, 2, 4))
    assert config.sizes()["history+horizon"] == (8, 24)
    with pytest.raises(ValueError, match="multiple of 8"):
        MADiffD.Config(history=2, horizon=4, multipliers=(1, 1, 1, 1))
