"""Every public layout is read transition by transition as it was written, and refused with the place of its fault."""

import dataclasses
import os
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEEN = ("obs", "state", "legal")


def same(data, expected):
    assert data.arrays().keys() == expected.arrays().keys()
    for name, values in expected.arrays().items():
        found = data.arrays()[name]
        assert found.dtype == values.dtype, name
        assert np.array_equal(found, values), name


@pytest.mark.parametrize("source", ["og_marl", "omiga"])
def test_starcraft_vaults(source, public_data, forge):
    """OG-MARL flags the last transition; nothing that follows it was recorded."""
    entry = public_data(source, "smac/3m" if source == "og_marl" else "smac/2c_vs_64zg", "good")
    story = forge.episodes(entry.task, [7, 12])
    forge.write_vault(entry.paths()[0], [forge.rows(story)])
    data, card = entry.load()
    same(data, forge.canonical(story, SEEN))
    assert (card["episodes"], card["transitions"], card["ends"]) == (2, 19, "last")
    assert card["return_mean"] == pytest.approx(np.mean([e["rewards"].mean(1).sum() for e in story]), abs=1e-4)


def test_starcraft_vaults_with_delimiters_are_recognised_by_rows_in_which_nobody_lives(public_data, forge):
    entry = public_data("omiga", "smac/2c_vs_64zg", "poor")
    story = forge.episodes(entry.task, [7, 12])
    for one in story:
        one["legal"][-1] = False
        one["legal"][-1, :, 0] = True
    forge.write_vault(entry.paths()[0], [forge.rows(story, delimited=True)])
    data, card = entry.load()
    same(data, forge.canonical(story, ()))
    assert card["ends"] == "delimiter"


@pytest.mark.parametrize("layout", ["vault", "hdf5"])
def test_omigas_robots(layout, public_data, forge):
    """A delimiter row holds what followed the last action; its action and reward are none."""
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    story = forge.episodes(entry.task, [9, 5])
    for one in story:
        one["rewards"][:] = one["rewards"][:, :1]  # OMIGA has one number a row
    rows = forge.rows(story, delimited=True)
    if layout == "vault":
        forge.write_vault(entry.paths()[0], [rows])
    else:
        forge.write_hdf5(entry.paths()[1], rows)
    same(entry.load()[0], forge.canonical(story, ()))


def test_an_episode_as_long_as_the_limit_ended_by_the_clock(public_data, forge):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    story = forge.episodes(entry.task, [entry.task.limit, 5])
    forge.write_hdf5(entry.paths()[1], forge.rows(story, delimited=True))
    data, _ = entry.load()
    ends = data.done | data.timeout
    assert data.timeout[ends].tolist() == [True, False]
    assert data.done[ends].tolist() == [False, True]


@pytest.mark.parametrize("task", ["mpe/spread", "mpe/tag", "mamujoco/2halfcheetah"])
@pytest.mark.parametrize("layout", ["vault", "npy"])
def test_omars_seeds_lie_end_to_end_without_the_prey(task, layout, public_data, forge):
    """Episodes are cut by their length; the folders tell what followed the last action, the vault does not."""
    entry = public_data("omar", task, "medium")
    prey = entry.task.roster.get("prey", 0)
    cheetah = task == "mamujoco/2halfcheetah"
    agents = entry.task.agents + prey
    whole = dataclasses.replace(entry.task, agents=agents, state=17 if cheetah else agents * entry.task.obs)
    seeds = [forge.episodes(whole, [entry.task.limit] * n, seed) for seed, n in ((0, 2), (1, 1 + (layout == "vault")))]
    for one in [e for own in seeds for e in own]:
        if not cheetah:
            one["state"] = one["obs"].reshape(len(one["obs"]), -1)
    rows = [forge.rows(own) for own in seeds]
    if layout == "vault":
        forge.write_vault(entry.paths()[0], rows)
    for k, (own, columns) in enumerate(zip(seeds, rows)):
        if layout == "npy":
            folder = entry.paths()[1] / f"seed_{k}_data"
            forge.write_npy(folder, columns, np.concatenate([one["obs"][1:] for one in own]))
            if cheetah:
                np.save(folder / "states_0.npy", columns["state"])
    learners, flat = slice(entry.task.agents), slice(entry.task.state)
    cut = [{k: v[:, flat] if k == "state" else v[:, learners] for k, v in one.items()} for own in seeds for one in own]
    data, _ = entry.load()
    expected = forge.canonical(cut, SEEN if layout == "vault" else ("state",), timeout=True)
    expected.behaviour[:] = [k for k, own in enumerate(seeds) for _ in own]
    same(data, expected)


def test_medium_expert_joins_the_first_share_of_each_seeds_episodes(public_data, forge):
    stories = {}
    for quality in ("medium", "expert"):
        entry = public_data("omar", "mpe/spread", quality)
        stories[quality] = [forge.episodes(entry.task, [25] * 10, seed=len(quality) + k) for k in range(2)]
        forge.write_vault(entry.paths()[0], [forge.rows(own) for own in stories[quality]])
    data, card = public_data("omar", "mpe/spread", "medium-expert").load()
    chosen = [e for own in stories["medium"] for e in own[:9]] + [e for own in stories["expert"] for e in own[:1]]
    assert np.array_equal(data.actions, np.concatenate([e["actions"] for e in chosen]))
    assert np.bincount(data.behaviour).tolist() == [9, 9, 1, 1]
    assert card["mix"] == {"medium": 0.9, "expert": 0.1}


def test_what_follows_the_last_end_is_left_out_and_said(public_data, forge):
    entry = public_data("og_marl", "smac/3m", "good")
    story = forge.episodes(entry.task, [4, 6, 5])
    rows = forge.rows(story)
    rows["ends"][-1] = 0
    forge.write_vault(entry.paths()[0], [rows])
    data, card = entry.load()
    same(data, forge.canonical(story[:2], SEEN))
    assert card["rows_without_an_end"] == 5


def test_a_second_load_reads_the_converted_arrays_and_a_damaged_one_is_converted_anew(public_data, forge, monkeypatch):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    forge.write_hdf5(entry.paths()[1], forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True))
    first, card = entry.load()
    before = {name: np.array(values) for name, values in first.arrays().items()}
    file = entry.place() / "obs.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert entry.ready() is None
    again, _ = entry.load()
    assert all(np.array_equal(before[name], values) for name, values in again.arrays().items())
    monkeypatch.setattr(type(entry), "open", lambda self: pytest.fail("read the file again"))
    assert entry.load()[1] == card == entry.ready()


def test_drafts_of_killed_conversions_are_cleared_and_those_under_way_are_not(public_data, forge):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    forge.write_hdf5(entry.paths()[1], forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True))
    old, young = (entry.place().with_name(f".{entry.place().name}.{name}") for name in ("old", "young"))
    for draft in (old, young):
        draft.mkdir(parents=True)
        (draft / "obs.npy").touch()
    os.utime(old / "obs.npy", (1, 1))
    entry.load()
    assert young.exists() and not old.exists()


def test_two_conversions_at_once_leave_one_sound_dataset(public_data, forge, monkeypatch):
    """The other process finishes first: its folder is where ours should appear."""
    from offmarl.datasets import cache

    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    forge.write_hdf5(entry.paths()[1], forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True))
    _, card = entry.load()
    monkeypatch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)  # it appears after we looked
    looks = iter([None, card])
    with monkeypatch.context() as patch:
        patch.setattr(type(entry), "ready", lambda self: next(looks))
        assert entry.load()[1] == card
    assert next(looks, "asked twice") == "asked twice"
    assert card == entry.ready()


def test_converted_arrays_are_mapped_into_memory(public_data, forge):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    forge.write_hdf5(entry.paths()[1], forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True))
    assert isinstance(entry.load()[0].obs, np.memmap)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    delimited=st.booleans(),
    slice_rows=st.integers(1, 40),
)
def test_no_transition_joins_two_episodes(lengths, delimited, slice_rows, public_data, forge, tmp_path, monkeypatch):
    """Whatever the lengths and wherever slices end: one end an episode, returns as by hand."""
    from offmarl.datasets.public import columns, convert
    from offmarl.datasets.public.layouts import open_hdf5

    monkeypatch.setattr(columns, "SLICE_BYTES", 8 * 42 * slice_rows)  # an observation row has 42 numbers
    task = public_data("omiga", "mamujoco/3hopper", "expert").task
    story = forge.episodes(task, lengths, seed=len(lengths))
    for k, one in enumerate(story):
        one["obs"][:, 0, 0] = k  # who wrote this row
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    forge.write_hdf5(tmp_path / "x" / "file.hdf5", forge.rows(story, delimited))
    recordings = [(one, 1.0) for one in open_hdf5(tmp_path / "x" / "file.hdf5")]
    convert.convert(recordings, task, "delimiter" if delimited else "last", tmp_path / "x" / "out", {})
    data = convert.read_folder(tmp_path / "x" / "out")
    assert np.array_equal(data.obs[data.rows, 0, 0], data.obs[data.rows + 1, 0, 0])
    assert np.array_equal(data.obs[data.rows, 0, 0], data.episode)
    assert (data.done | data.timeout).sum() == len(lengths)
    assert np.bincount(data.episode).tolist() == lengths
    by_hand = [one["rewards"][:, :1].repeat(3, 1).mean(1).sum() for one in story]
    assert data.returns() == pytest.approx(by_hand, abs=1e-4)


# What is wrong, in which layout, how it comes about, and what the error must name.
def cut_short(entry):
    for file in (entry.found() / "d").iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose(entry):
    max((entry.found() / "d").iterdir(), key=lambda file: file.stat().st_size).unlink()


VAULT = {
    "truncated": (cut_short, {}, "not a complete vault"),
    "a file lost": (lose, {}, "cannot be"),
    "no metadata": (lambda entry: (entry.found() / "metadata.json").write_text("{"), {}, "not a complete vault"),
    "missing key": (None, {"actions": None}, "'actions' is missing"),
    "no state": (None, {"state": None}, "has no state"),
    "wrong type": (None, {"obs": lambda v: v.astype(np.int64)}, "observations has values of type 'i'"),
    "fractions of actions": (None, {"actions": lambda v: v.astype(np.float32)}, "actions has values of type 'f'"),
    "agents": (None, {"obs": lambda v: v[:, :2]}, "observations has rows of shape (2, 30)"),
    "more agents": (None, {"obs": lambda v: np.repeat(v, 2, 1)}, "3 agents"),
    "not a number": (None, {"obs": lambda v: poke(v, 15, np.nan)}, "observations, row 15: not a finite number"),
    "infinite reward": (None, {"rewards": lambda v: poke(v, 3, np.inf)}, "rewards, row 3: not a finite number"),
    "no such action": (None, {"actions": lambda v: poke(v, 18, 9)}, "actions, row 18: outside 0 to 8"),
    "half a flag": (None, {"ends": lambda v: poke(v, 2, 0.5)}, "terminals, row 2: not a flag"),
    "no end": (None, {"ends": np.zeros_like}, "no episode ends"),
    "late end": (None, {"ends": lambda v: poke(np.zeros_like(v), 70, 1)}, "row 70: an episode of 71 transitions"),
}


def poke(values, row, value):
    values = values.copy()
    values[row] = value
    return values


def refused(entry, words):
    with pytest.raises(ValueError) as error:
        entry.load()
    message = str(error.value)
    assert words in message
    assert str(entry.found()) in message
    assert "\n" not in message
    cached = entry.place().parent
    assert not cached.exists() or list(cached.iterdir()) == []  # nothing half-loaded stays


@pytest.mark.parametrize("what", VAULT)
def test_faults_of_a_vault_are_named(what, public_data, forge):
    damage, changes, words = VAULT[what]
    entry = public_data("og_marl", "smac/3m", "good")
    rows = forge.rows(forge.episodes(entry.task, [40, 50]))
    rows |= {name: change(rows[name]) for name, change in changes.items() if change}
    forge.write_vault(entry.paths()[0], [{n: v for n, v in rows.items() if changes.get(n, 0) is not None}])
    if damage:
        damage(entry)
    refused(entry, words)


def rewrite(entry, key, change):
    with h5py.File(entry.found(), "r+") as file:
        values = file[key][:]
        del file[key]
        if change is not None:
            file[key] = change(values)


HDF5 = {
    "truncated": (None, None, "not a complete HDF5 file"),
    "missing key": ("a", None, "'a' is missing"),
    "wrong type": ("a", lambda v: v.astype(np.int64), "a has values of type 'i'"),
    "text": ("o", lambda v: v.astype("S4"), "o has values of type 'S'"),
    "agents": ("o", lambda v: v[:, :2], "o has rows of shape (2, 14)"),
    "shorter": ("r", lambda v: v[:-3], "r has 13 rows, but o has 16"),
    "not a number": ("s", lambda v: poke(v, 11, np.nan), "s, row 11: not a finite number"),
    "ends in every row": ("d", np.ones_like, "row 0: an end without a transition"),
    "not a flag": ("d", lambda v: poke(v, 4, 2), "d, row 4: not a flag"),
}


@pytest.mark.parametrize("what", HDF5)
def test_faults_of_an_hdf5_file_are_named(what, public_data, forge):
    key, change, words = HDF5[what]
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    forge.write_hdf5(entry.paths()[1], forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True))
    if key is None:
        entry.found().write_bytes(entry.found().read_bytes()[:-200])
    else:
        rewrite(entry, key, change)
    refused(entry, words)


NPY = {
    "truncated": ("obs_1", "cut", "obs_1.npy: is not a complete .npy"),
    "missing file": ("acs_2", "remove", "acs_2.npy is missing"),
    "pickled": ("rews_0", lambda v: v.astype(object), "rews_0.npy: is not a complete .npy"),
    "agents of different types": ("obs_0", lambda v: v.astype(np.int64), "obs_<i>.npy have values of different types"),
    "agents of different shapes": ("obs_0", lambda v: v[:, :5], "different shapes"),
    "shorter": ("acs_1", lambda v: v[:-2], "acs_1.npy has 48 rows"),
    "not a number": ("next_obs_2", lambda v: poke(v, 24, np.nan), "next_obs_<i>.npy, row 24"),
    "an end inside an episode": ("dones", lambda v: poke(v, 7, 1), "row 7: an end, but episodes have 25 rows"),
}


@pytest.mark.parametrize("what", NPY)
def test_faults_of_a_folder_of_arrays_are_named(what, public_data, forge):
    stem, change, words = NPY[what]
    entry = public_data("omar", "mpe/spread", "medium")
    story = forge.episodes(entry.task, [25, 25])
    folder = entry.paths()[1] / "seed_0_data"
    forge.write_npy(folder, forge.rows(story), np.concatenate([one["obs"][1:] for one in story]))
    for file in [folder / f"{stem}.npy"] if stem != "dones" else [folder / f"dones_{i}.npy" for i in range(3)]:
        if change == "cut":
            file.write_bytes(file.read_bytes()[:-20])
        elif change == "remove":
            file.unlink()
        else:
            np.save(file, change(np.load(file)), allow_pickle=True)
    refused(entry, words)


def test_actions_beyond_the_actuators_are_clipped_and_counted(public_data, forge):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    rows = forge.rows(forge.episodes(entry.task, [9, 5]), delimited=True)
    rows["actions"][3, 1] = 1.5
    forge.write_hdf5(entry.paths()[1], rows)
    data, card = entry.load()
    assert data.actions[3, 1] == 1.0
    assert card["clipped_actions"] == 1


def test_little_of_a_large_recording_is_in_memory_at_once(public_data, forge, monkeypatch):
    import tracemalloc

    from offmarl.datasets.public import columns

    monkeypatch.setattr(columns, "SLICE_BYTES", 2**19)
    entry = public_data("omiga", "mamujoco/6halfcheetah", "expert")
    forge.write_hdf5(entry.paths()[1], forge.rows(forge.episodes(entry.task, [1000] * 20), delimited=True))
    size = entry.found().stat().st_size
    entry.load()
    shutil.rmtree(entry.place())
    monkeypatch.setattr("offmarl.datasets.public.boundaries.INSPECTED", 500)
    tracemalloc.start()
    entry.load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 3
