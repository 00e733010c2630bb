"""The prey of tag and world: the scripted one, and OMAR's from a file."""

import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from offmarl.benchmarks.mpe import MpeEnv, ParticleWorld, ScriptedPrey, load_prey
from offmarl.benchmarks.tasks import tasks

SIZES = {"tag": (4, 2), "world": (4, 5)}  # agents, landmarks
OFFMARL_PREY = os.environ.get("OFFMARL_PREY")
chases = pytest.mark.parametrize("scenario", SIZES)


def env_of(scenario, lanes, **options):
    return MpeEnv(tasks()[f"mpe/{scenario}"], lanes, **options)


@chases
def test_the_scripted_prey_flees_or_goes_home(scenario):
    prey, landmarks = ScriptedPrey(SIZES[scenario][1]), SIZES[scenario][1]

    def act(place, *threats):
        seen = [0, 0, *place, *np.zeros(2 * landmarks), *np.ravel(threats), *([-1, -1] if scenario == "world" else [])]
        return prey(np.array([seen], float))[0]

    far = [5, 5]
    assert act([0, 0], [0.1, 0], far, far) == pytest.approx([-0.92 / 1.6, 0])
    assert act([0, 0], far, [0, -0.15], far) == pytest.approx([0, 0.92 / 1.6])
    assert act([0.5, 0], far, far, far) == pytest.approx([-0.5 * 1.2 * 0.92 / 1.6, 0])
    assert act([0, -0.95], far, far, [0, 0.1])[1] > 0  # rather past the predator than out of the field
    assert act([0, 0], far, far, far) == pytest.approx([0, 0])


@chases
def test_the_scripted_prey_steers_from_its_velocity_to_the_one_it_wants(scenario):
    """Closed form: away from what is nearer than 0.2, home by 1.2 of its place, 0.92 fast; the force does the rest."""
    rng, marks = np.random.default_rng(0), 2 * SIZES[scenario][1]
    place, speed = rng.uniform(-1, 1, (2, 300, 2)) * np.array([1, 1.3])[:, None, None]
    threats = rng.uniform(-0.25, 0.25, (300, 3, 2))
    flags = np.ones((300, 2 * (scenario == "world")))
    place[0], threats[0, 0] = 0, 0  # a predator on top of it
    actions = ScriptedPrey(SIZES[scenario][1])(
        np.concatenate([speed, place, rng.normal(size=(300, marks)), threats.reshape(300, 6), flags], 1)
    )
    assert np.isfinite(actions[0]).all() and {-1.0, 1.0} < set(actions.ravel().tolist())
    for k in range(1, 300):
        away = sum((-d / np.linalg.norm(d) * max(0.2 - np.linalg.norm(d), 0) for d in threats[k]), np.zeros(2))
        wish = (away / np.linalg.norm(away) if away.any() else away) - 1.2 * place[k]
        wish *= 0.92 / max(1, np.linalg.norm(wish))
        assert actions[k] == pytest.approx(((wish - 0.75 * speed[k]) / (16 * 0.1)).clip(-1, 1), abs=1e-9)


@chases
def test_the_scripted_prey_stays_in_the_field(scenario):
    world = ParticleWorld(scenario, 200)
    world.reset(np.arange(200))
    for _ in range(25):
        views = np.stack(world.observe()[:3], 1)
        way = 8 + 2 * SIZES[scenario][1]
        world.step(np.clip(5 * views[:, :, way : way + 2], -1, 1))  # everyone after it
        assert np.abs(world.agents[:, 3]).max() < 1.2
    assert (np.abs(world.agents[:, 3]) < 1).all(-1).mean() > 0.98


@pytest.fixture
def policy():
    """OMAR's network for a prey that sees 14 numbers, with random weights and statistics."""
    torch.manual_seed(0)
    layers = {"in_fn": nn.BatchNorm1d(14), "fc1": nn.Linear(14, 64), "relu1": nn.ReLU(), "fc2": nn.Linear(64, 64)}
    layers |= {"relu2": nn.ReLU(), "fc3": nn.Linear(64, 2), "tanh": nn.Tanh()}
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(layers["in_fn"], name).data.uniform_(0.5, 2)
    return nn.Sequential(OrderedDict(layers)).eval()


def save(policy, file, **changes):
    """The policy as npz, or inside a MADDPG checkpoint as pt."""
    weights = {name: value.numpy() for name, value in policy.state_dict().items()} | changes
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".npz":
        np.savez(file, **{name: value for name, value in weights.items() if value is not None})
    else:
        agents = [{"policy": {}}] * 3 + [{"policy": policy.state_dict(), "policy_optimizer": {"state": {}}}]
        torch.save({"init_dict": {"gamma": 0.95}, "agent_params": agents}, file)
    return file


@pytest.mark.parametrize("name", ["prey_tag.npz", "simple_tag/pretrained_adv_model.pt"])
def test_a_pretrained_prey_acts_as_its_network(tmp_path, monkeypatch, policy, name):
    file, seen = save(policy, tmp_path / name), np.random.default_rng(0).normal(0, 1, (9, 14))
    expected = policy(torch.tensor(seen, dtype=torch.float32)).detach().numpy()
    from_file, from_folder = load_prey("tag", file), load_prey("tag", tmp_path)
    monkeypatch.setenv("OFFMARL_PREY", str(file))
    for prey in (from_file, from_folder, ParticleWorld("tag", 1).prey, env_of("tag", 1).world.prey):
        assert prey(seen) == pytest.approx(expected, abs=1e-6)
        assert prey.name == from_file.name != ScriptedPrey.name
    monkeypatch.setenv("OFFMARL_PREY", "")
    assert load_prey("tag").name == "scripted"


@pytest.mark.parametrize(
    ("scenario", "name", "changes", "reason"),
    [
        ("world", "prey.npz", {}, "takes 14"),
        ("tag", "prey.npz", {"fc2.weight": None}, "KeyError: 'fc2.weight'"),
        ("tag", "prey.npz", {"fc3.bias": np.array([0, np.nan])}, "finite"),
        ("tag", "prey.npz", {"fc1.weight": np.zeros((64, 9))}, "ValueError: "),
        ("tag", "absent.npz", None, "FileNotFoundError"),
        ("tag", "absent.pt", None, "FileNotFoundError"),
        ("tag", "noise.npz", b"noise", "ValueError"),
        ("tag", "noise.pt", b"noise", "UnpicklingError"),
    ],
)
def test_a_wrong_prey_file_is_named_with_the_reason_and_the_cure(tmp_path, policy, scenario, name, changes, reason):
    file = tmp_path / name
    if isinstance(changes, bytes):
        file.write_bytes(changes)
    elif changes is not None:
        save(policy, file, **changes)
    with pytest.raises(ValueError, match="simple_tag/pretrained_adv_model.pt: "):
        load_prey("tag", tmp_path)  # a folder without any
    with pytest.raises(ValueError, match="not a pretrained prey") as caught:
        env_of(scenario, 1, prey=file)
    (message,) = str(caught.value).splitlines()
    assert message.startswith(f"{file}: ")
    assert reason in message
    assert f"give the prey of simple_{scenario}, or unset OFFMARL_PREY" in message
