"""Public data in miniature: episodes of a task, written in the layouts of their publishers by the libraries behind."""

from types import SimpleNamespace

import numpy as np
import pytest


def episodes(task, lengths, seed=0):
    """Random episodes of the given lengths, as the canonical form has them: T + 1 rows of what is seen, T actions."""
    rng, found = np.random.default_rng(seed), []
    for n in lengths:
        one = {
            "obs": rng.normal(size=(n + 1, task.agents, task.obs)).astype(np.float32),
            "state": rng.normal(size=(n + 1, task.state)).astype(np.float32),
            "rewards": rng.normal(size=(n, task.agents)).astype(np.float32),
        }
        if task.discrete:
            one["legal"] = rng.random((n + 1, task.agents, task.actions)) < 0.5
            one["legal"][..., 1] = True
            one["actions"] = rng.integers(task.actions, size=(n, task.agents))
            np.put_along_axis(one["legal"][:-1], one["actions"][..., None], True, -1)
            one["rewards"][:] = one["rewards"][:, :1]
        else:
            one["actions"] = rng.uniform(-1, 1, (n, task.agents, task.actions)).astype(np.float32)
        found.append(one)
    return found


def rows(story, delimited=False):
    """The episodes on one time axis: what follows the last action is left out, or is a delimiter row."""
    columns = {name: [] for name in (*story[0], "ends")}
    for one in story:
        n = len(one["actions"])
        for name, values in one.items():
            if len(values) == n and delimited:  # a delimiter's action and reward mean nothing
                values = np.concatenate([values, np.zeros_like(values[:1])])
            columns[name].append(values if delimited else values[:n])
        flags = np.zeros((n + delimited, one["obs"].shape[1]), np.float32)
        flags[-1] = 1
        columns["ends"].append(flags)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def canonical(story, unseen, timeout=False):
    """What a reader should make of the episodes. In the columns `unseen` the last row stands in for what follows."""
    from offmarl.datasets.dataset import from_episodes

    seen = [
        {name: np.concatenate([v[:-1], v[-2:-1]]) if name in unseen else v for name, v in one.items()}
        | {"done": not timeout, "timeout": timeout}
        for one in story
    ]
    return from_episodes(seen, [0] * len(seen))


NAMES = {"obs": "observations", "ends": "terminals", "legal": "infos.legals", "state": "infos.state"}
NAMES["timeouts"] = "truncations"


def write_vault(folder, recordings):
    """A flashbax vault of recordings (columns by our names) side by side on its leading axis."""
    import flashbax
    import jax
    import jax.numpy as jnp
    from flashbax.vault import Vault

    tree = {}
    for name in recordings[0]:
        *nest, leaf = NAMES.get(name, name).split(".")
        values = np.stack([columns[name] for columns in recordings])
        values = values.astype(np.int32 if values.dtype == np.int64 else np.float32)
        (tree.setdefault(nest[0], {}) if nest else tree)[leaf] = jnp.asarray(values)
    count, length = len(recordings), len(recordings[0]["obs"])
    buffer = flashbax.make_trajectory_buffer(
        max_length_time_axis=length + 1,
        min_length_time_axis=2,
        sample_batch_size=1,
        add_batch_size=count,
        sample_sequence_length=2,
        period=1,
    )
    state = buffer.init(jax.tree.map(lambda x: x[0, 0], tree))
    state = buffer.add(state, tree)
    root, vault, uid = folder.parent.parent, folder.parent.name, folder.name
    assert Vault(vault, state.experience, rel_dir=str(root), vault_uid=uid).write(state) == length


def write_hdf5(file, columns):
    """OMIGA's file."""
    import h5py

    file.parent.mkdir(parents=True, exist_ok=True)
    agents = columns["obs"].shape[1]
    with h5py.File(file, "w") as out:
        out["o"], out["a"] = columns["obs"], columns["actions"]
        out["s"] = np.repeat(columns["state"][:, None], agents, 1)
        out["r"], out["d"] = columns["rewards"][:, :1], columns["ends"][:, :1]


def write_npy(folder, columns, following):
    """One seed of OMAR's folder; flags are all zero, as in OMAR's."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(columns["obs"].shape[1]):
        np.save(folder / f"obs_{i}.npy", columns["obs"][:, i])
        np.save(folder / f"next_obs_{i}.npy", following[:, i])
        np.save(folder / f"acs_{i}.npy", columns["actions"][:, i])
        np.save(folder / f"rews_{i}.npy", columns["rewards"][:, i])
        np.save(folder / f"dones_{i}.npy", np.zeros(len(following)))


def hopper(entry, lengths=(30, 12, 45), seed=0):
    """Write a dataset of OMIGA's hopper."""
    story = episodes(entry.task, lengths, seed)
    for one in story:
        one["rewards"][:] = one["rewards"][:, :1]
    write_hdf5(entry.paths()[1], rows(story, delimited=True))


@pytest.fixture(scope="session")
def forge():
    """The functions above."""
    made = (episodes, rows, canonical, write_vault, write_hdf5, write_npy)
    return SimpleNamespace(**{function.__name__: function for function in made})


@pytest.fixture
def public_data(tmp_path, monkeypatch):
    """The data folder and cache of one test; its catalogue's entry of a source, task and quality."""
    from offmarl.datasets.public.releases import catalogue

    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OFFMARL_PREY", raising=False)
    return lambda source, task, quality: catalogue(source)[task, quality]
