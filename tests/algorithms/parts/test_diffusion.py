import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from offmarl.algorithms import registry
from offmarl.algorithms.parts.batch import Batch, TaskSpec
from offmarl.algorithms.parts.diffusion import cosine, ddim, ddpm, denoise, diffuse, embed, linear, solver, vp, vp_time


def test_the_schedules_are_those_of_the_papers():
    """Ends as measured on the official codes, and the cosine law where its clipping does not bind."""
    assert cosine(200)[-1].item() == pytest.approx(6.1e-8, rel=0.02)
    assert linear(200)[-1].item() == pytest.approx(3.0e-5, rel=0.02)
    u = torch.arange(1, 151, dtype=torch.float64) / 200
    law = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert_close(cosine(200)[:150], law)
    beta = 1 - linear(200)[1:] / linear(200)[:-1]
    assert_close(beta, torch.linspace(5e-4, 0.1, 200, dtype=torch.float64)[1:])


@pytest.mark.parametrize("schedule", [cosine, linear])
@given(steps=st.integers(2, 300))
def test_noise_only_grows(schedule, steps):
    abar = schedule(steps)
    assert (abar > 0).all() and (abar < 1).all() and (abar.diff() < 0).all()


def test_an_ancestral_step_is_the_gaussian_posterior():
    """q(x_{t-1} | x_t, x_0) from its two factors: x_{t-1} given x_0, and x_t given x_{t-1}."""
    abar = cosine(50)
    chain = ddpm(abar)
    x, data = 0.3, -0.2
    for k, t in enumerate(chain.time.tolist()):
        if t == 0:
            continue
        alpha = abar[t] / abar[t - 1]
        precision = 1 / (1 - abar[t - 1]) + alpha / (1 - alpha)
        mean = (abar[t - 1].sqrt() * data / (1 - abar[t - 1]) + alpha.sqrt() * x / (1 - alpha)) / precision
        assert (chain.from_data[k] * data + chain.from_x[k] * x).item() == pytest.approx(mean.item(), rel=1e-4)
        assert chain.deviation[k].item() == pytest.approx(precision.rsqrt().item(), rel=1e-4)
    assert chain.deviation[-1] == 0 and chain.from_data[-1] == 1 and chain.from_x[-1] == 0


def test_fewer_calls_are_evenly_spaced_and_end_at_the_data():
    assert ddim(cosine(200), 15).time.tolist() == list(range(182, -1, -13))
    assert ddim(cosine(10), 10).time.tolist() == list(range(9, -1, -1))


@pytest.mark.parametrize("make", [ddpm, lambda abar: ddim(abar, 15)])
def test_the_true_noise_leads_back_to_the_data(make):
    abar = cosine(200)
    data = torch.tensor([0.7, -0.4, 0.1])

    def predict(x, time):
        return (x - abar[time].sqrt().float() * data) / (1 - abar[time]).sqrt().float()

    torch.manual_seed(0)
    assert_close(denoise(make(abar), predict, lambda k: torch.randn(3)), data, atol=1e-4, rtol=0)


def test_a_gaussians_chain_gives_the_gaussian_back():
    """Data N(0.1, 0.2^2): the best prediction of the noise is known, and the samples have the data's moments."""
    abar, mean, std = cosine(200), 0.1, 0.2
    torch.manual_seed(0)

    def predict(x, time):
        a = abar[time].float()
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * std**2 + 1 - a)

    ends = denoise(ddpm(abar), predict, lambda k: torch.randn(20_000))
    assert ends.mean().item() == pytest.approx(mean, abs=0.01) and ends.std().item() == pytest.approx(std, rel=0.05)


def test_the_variance_preserving_process_integrates_its_rate():
    time = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    rate = 0.1 + (20 - 0.1) * time
    law = torch.exp(-torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumulative_trapezoid(rate, time)]))
    assert_close(vp(time), law, rtol=1e-6, atol=1e-9)
    assert_close(vp_time(law), time, rtol=1e-6, atol=1e-6)


def test_a_solver_of_few_calls_finds_a_gaussians_mean_and_width():
    """Fifteen calls of the probability flow on data N(0.1, 0.2^2)."""
    mean, std = 0.1, 0.2

    def predict(x, time):
        a = vp(time).float()
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * std**2 + 1 - a)

    torch.manual_seed(0)
    ends = denoise(solver(15), predict, lambda k: torch.randn(20_000))
    assert ends.mean().item() == pytest.approx(mean, abs=0.01) and ends.std().item() == pytest.approx(std, rel=0.2)


def test_what_is_held_survives_the_chain_exactly():
    known = torch.tensor([0.123456789, -0.7])
    seen = []

    def hold(x):
        return torch.cat([known, x[2:]])

    def predict(x, time):
        seen.append(torch.equal(x[:2], known))
        return torch.randn(4)

    ends = denoise(ddpm(cosine(10)), predict, lambda k: torch.randn(4), hold)
    assert torch.equal(ends[:2], known) and seen == [True] * 10


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_chains_are_those_of_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    options = {"num_train_timesteps": 200, "beta_schedule": "squaredcos_cap_v2"}
    if name == "ddpm":
        scheduler, chain = diffusers.DDPMScheduler(**options), ddpm(cosine(200))
        scheduler.set_timesteps(200)
    else:
        scheduler, chain = diffusers.DDIMScheduler(**options, set_alpha_to_one=True), ddim(cosine(200), 15)
        scheduler.set_timesteps(15)
    assert chain.time.tolist() == scheduler.timesteps.tolist()
    x = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    for k, t in enumerate(scheduler.timesteps):
        e = 0.3 * x
        extra = {"generator": torch.Generator().manual_seed(k)} if name == "ddpm" else {}
        expected = scheduler.step(e, t, x, **extra).prev_sample
        fresh = torch.randn(1, 5, generator=torch.Generator().manual_seed(k))
        one = type(chain)(*(part[k : k + 1] for part in chain))
        found = denoise(one, lambda x, t, e=e: e, lambda j, x=x, fresh=fresh: x if j else fresh)
        assert_close(found, expected, rtol=1e-4, atol=1e-5)
        x = expected


def test_the_forward_process_keeps_unit_variance():
    x, noise = torch.randn(2, 50_000)
    for abar in (0.99, 0.5, 0.01):
        assert diffuse(x, noise, torch.tensor(abar)).std().item() == pytest.approx(1, abs=0.02)


def test_steps_are_told_apart():
    points = embed(torch.arange(200), 64)
    assert points.shape == (200, 64) and torch.cdist(points, points).add(10 * torch.eye(200)).min() > 0.1


def test_diffusion_recovers_both_modes_where_a_gaussian_sits_between_them():
    """70 % of the data near 0.7, 30 % near -0.7."""
    spec, ends, updates = TaskSpec(1, 1, 1, 1, discrete=False), {}, 3000
    g = torch.Generator().manual_seed(0)
    for name in ("diffusion_bc", "bc"):
        cls = registry()[name]
        config = {"hidden": (64, 64), "learning_rate": 3e-3, "decay_steps": updates}
        algorithm = cls(spec, cls.Config(**config | ({"diffusion_steps": 50} if name != "bc" else {})), [0])
        for _ in range(updates):
            high = torch.rand(1, 256, 1, 1, generator=g) < 0.7
            actions = torch.where(high, 0.7, -0.7) + 0.05 * torch.randn(1, 256, 1, 1, generator=g)
            zero, number = torch.zeros(1, 256, 1, 1), torch.zeros(1, 256, dtype=torch.int64)
            known = (zero[..., 0], zero, zero[..., 0, 0], None, None, zero, zero)
            algorithm.update(Batch(zero, actions, *known, actions, number))
        ends[name] = algorithm.act(torch.zeros(1, 4000, 1, 1))[0].flatten()
    shares = [((ends["diffusion_bc"] - centre).abs() < 0.25).float().mean().item() for centre in (0.7, -0.7)]
    assert shares == [pytest.approx(0.7, rel=0.1), pytest.approx(0.3, rel=0.1)]
    assert ((ends["bc"] - 0.28).abs() < 0.1).all()  # between them, where no data are


def test_a_deterministic_step_moves_along_the_predicted_noise():
    """DDIM, Eq. 12 with sigma 0."""
    abar, noise, start, seen = cosine(20).float(), torch.full((4,), 0.3), torch.linspace(-0.5, 0.5, 4), []

    def predict(x, time):
        seen.append(x)
        return noise

    denoise(ddim(abar, 5), predict, lambda k: start if k == 5 else torch.zeros(4))
    data = ((start - (1 - abar[16]).sqrt() * noise) / abar[16].sqrt()).clamp(-1, 1)
    assert_close(seen[1], abar[12].sqrt() * data + (1 - abar[12]).sqrt() * noise)


def test_a_solvers_times_are_even_in_the_log_ratio_and_its_steps_of_second_order():
    """DPM-Solver++, Algorithm 2: equal steps add half the last change of the data, but for the first and the last."""
    chain = solver(6)
    ratio = vp(chain.time.double()).logit() / 2
    ends = vp(torch.tensor([1.0, 1e-3], dtype=torch.float64)).logit() / 2
    assert_close(ratio, torch.linspace(float(ends[0]), float(ends[1]), 6, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    assert_close(chain.extrapolate, torch.tensor([0.0, 0.5, 0.5, 0.5, 0.5, 0.0]))


def test_the_embedding_has_the_transformers_rates():
    """Vaswani et al. 2017: sines and cosines of rates that fall from 1 to 1/10,000 in equal ratios."""
    time, rates = torch.tensor([3, 17]), torch.tensor([1.0, 1e4 ** (-1 / 3), 1e4 ** (-2 / 3), 1e-4])
    angle = time[:, None] * rates
    assert_close(embed(time, 8), torch.cat([angle.sin(), angle.cos()], -1))
