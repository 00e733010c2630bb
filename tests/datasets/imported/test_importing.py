"""Data of the user's own: the same by every road, and nothing wrong that passes."""

import json

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from offmarl.benchmarks.tasks import tasks
from offmarl.datasets.dataset import from_episodes
from offmarl.datasets.imported.importing import import_episodes, import_files
from offmarl.datasets.own import catalogue, imported_file

LENGTHS = [7, 12, 9, 20, 60, 5, 11, 8, 6, 10]  # 60 is the limit
CUT = [3, 8]  # episodes that were cut off before it


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFMARL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OFFMARL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def task():
    return tasks()["smac/3m"]


@pytest.fixture
def story(task, forge):
    """Episodes that move smoothly and start alike, as a game's do."""
    found, rng = forge.episodes(task, LENGTHS), np.random.default_rng(1)
    for k, one in enumerate(found):
        for name in ("obs", "state"):
            steps = 0.01 * one[name]
            steps[0] = rng.uniform(-1, 1, steps[0].shape)
            one[name] = np.cumsum(steps, 0)
        one["terminated"], one["truncated"] = k not in CUT, k in CUT
    return found


@pytest.fixture
def wanted(story):
    """The canonical form of the story: what ends at the limit is the clock's."""
    ends = [{"done": k not in (4, *CUT), "timeout": k in (4, *CUT)} for k in range(len(story))]
    return from_episodes([one | end for one, end in zip(story, ends)], [0] * len(story))


def flat(story, following=True):
    """The story in Gymnasium's convention: rows on one time axis, terminals for true ends only."""
    names = ("obs", "state", "legal", "actions", "rewards")
    found = {name: np.concatenate([one[name][: len(one["actions"])] for one in story]) for name in names}
    last = np.cumsum([len(one["actions"]) for one in story]) - 1
    for name, flag in (("terminals", "terminated"), ("truncations", "truncated")):
        found[name] = np.zeros(len(found["obs"]), bool)
        found[name][last] = [one[flag] for one in story]
    if following:
        found |= {f"next_{name}": np.concatenate([one[name][1:] for one in story]) for name in names[:3]}
    return found


def loaded(task, name="mine"):
    return catalogue()[task.name, name].load()


def same(data, wanted, without=()):
    for name, values in wanted.arrays().items():
        if name not in without:
            np.testing.assert_array_equal(getattr(data, name), values, err_msg=name)


def to_hdf5(path, columns):
    with h5py.File(path, "w") as out:
        for name, values in columns.items():
            out[name] = values
    return path


def to_minari(story, task):
    """Written by minari, whose spaces are Dicts by agent."""
    names = [f"agent_{i}" for i in range(task.agents)]
    buffers = [
        EpisodeBuffer(
            id=k,
            observations={name: one["obs"][:, i] for i, name in enumerate(names)},
            actions={name: one["actions"][:, i] for i, name in enumerate(names)},
            rewards=list(one["rewards"]),
            terminations=[False] * (len(one["actions"]) - 1) + [one["terminated"]],
            truncations=[False] * (len(one["actions"]) - 1) + [one["truncated"]],
            infos={"state": one["state"], "legal": one["legal"]},
        )
        for k, one in enumerate(story)
    ]
    box = spaces.Box(-np.inf, np.inf, (task.obs,), np.float32)
    return minari.create_dataset_from_buffers(
        "own/story-v0",
        buffer=buffers,
        observation_space=spaces.Dict(dict.fromkeys(names, box)),
        action_space=spaces.Dict({name: spaces.Discrete(task.actions) for name in names}),
    ).storage.data_path


KEYS = {"obs": "s", "ends": "over", "timeouts": "cut", "state": "obs", "next_obs": "then"}
THEIRS = {"obs": "s", "terminals": "over", "truncations": "cut", "state": "obs", "next_obs": "then"}
NO_AUTHORS = "behaviour: the files do not say which policy recorded an episode, so all count as one policy's"
NOT_FOLLOWED = "3 time-outs lack a next observation: the last one is repeated and not learnt from"
ROADS = {  # to what each layout cannot carry: arrays, and what the card says of it
    "canonical": {},
    "iterator": {},
    "flat": {"behaviour": NO_AUTHORS},
    "keys": {"behaviour": NO_AUTHORS},
    "minari": {"behaviour": NO_AUTHORS},
    "vault": {"behaviour": NO_AUTHORS, **dict.fromkeys(("obs", "state", "legal"), NOT_FOLLOWED)},
}


def travel(road, task, story, wanted, forge, folder):
    """Import the story by a road as the dataset `mine`; what is told of it."""
    columns, keys = flat(story), {}
    if road == "iterator":
        return import_episodes("mine", task, (one | {"behaviour": k % 2} for k, one in enumerate(story)))
    if road == "canonical":
        np.savez(path := folder / "mine.npz", **wanted.arrays())
    elif road == "flat":
        np.savez(path := folder / "mine.npz", **columns)
    elif road == "keys":
        keys = KEYS
        (path := folder / "parts").mkdir()
        for k, part in enumerate((story[:5], story[5:])):
            to_hdf5(path / f"{k}.h5", {THEIRS.get(name, name): values for name, values in flat(part).items()})
    elif road == "minari":
        path = to_minari(story, task)
    else:
        columns = flat(story, following=False)
        columns["ends"], columns["timeouts"] = columns.pop("terminals"), columns.pop("truncations")
        forge.write_vault(path := folder / "mine.vlt/Good", [columns])
    return import_files("mine", task, [path], keys)


@pytest.mark.filterwarnings("ignore::UserWarning")  # minari asks for authors
@pytest.mark.parametrize("road", ROADS)
def test_every_road_ends_in_the_same_arrays_or_the_card_says_what_is_lost(
    road, task, story, wanted, forge, tmp_path, monkeypatch
):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    wanted.behaviour[:] = np.arange(len(LENGTHS)) % 2
    told, lost = travel(road, task, story, wanted, forge, tmp_path), ROADS[road]
    data, card = loaded(task)
    same(data, wanted, without=lost)
    for name in lost.keys() & {"obs", "state", "legal"}:  # all but what followed an episode's last action
        np.testing.assert_array_equal(getattr(data, name)[data.rows], getattr(wanted, name)[wanted.rows])
    assert card["settled"] == told["settled"] and told["episodes"] == len(LENGTHS)
    assert {line for line in (NO_AUTHORS, NOT_FOLLOWED) if line in card["settled"]} == set(lost.values())
    assert ("1 ends at the limit of 60 steps are the clock's: time-outs" in card["settled"]) == (road != "canonical")
    assert len(told["files"]) == {"iterator": 0, "keys": 2}.get(road, max(len(told["files"]), 1))


def test_ends_that_gymnasium_splits_in_two_do_not_merge_episodes(task, story, wanted):
    """Only terminals are read: the episodes that were cut off run into the next ones, and are cut where states jump."""
    columns = flat(story, following=False)
    del columns["truncations"]
    np.savez("flat.npz", **columns)
    told = import_files("mine", task, [imported_file(task, "").parents[4] / "flat.npz"])
    data, _ = loaded(task)
    assert np.bincount(data.episode).tolist() == LENGTHS and data.timeout.sum() == 3
    assert "2 episodes had no flagged end, and are cut where the state jumps" in told["settled"]


def test_what_loses_nothing_is_cast_and_told(task, story, wanted, tmp_path):
    columns = flat(story)
    columns["actions"] = np.eye(task.actions)[columns["actions"]]
    columns["rewards"] = np.rint(columns["rewards"][:, 0]).astype(int)
    np.savez("flat.npz", **columns)
    told = import_files("mine", task, [tmp_path / "flat.npz"])
    same(loaded(task)[0], wanted, without=["rewards"])
    assert told["settled"][:2] == [
        "actions: one-hot rows became numbers of actions",
        "rewards: whole numbers became floats",
    ]
    columns["actions"] = columns["actions"].argmax(-1).astype(float)
    np.savez("flat.npz", **columns)
    import_files("floats", task, [tmp_path / "flat.npz"])
    same(loaded(task, "floats")[0], loaded(task)[0])


def test_padding_by_minus_infinity_becomes_zeros_and_other_infinities_are_refused(task, story, wanted, tmp_path):
    columns = flat(story)
    for name in ("obs", "next_obs"):
        columns[name][:, 1, 20:] = -np.inf
    np.savez("flat.npz", **columns)
    told = import_files("mine", task, [tmp_path / "flat.npz"])
    data, _ = loaded(task)
    assert (data.obs[:, 1, 20:] == 0).all() and np.array_equal(data.obs[:, 0], wanted.obs[:, 0])
    assert "obs: 10 features are -inf in every row: padding, which became zeros" in told["settled"]
    columns["obs"][40, 1, 25] = 0.5
    np.savez("flat.npz", **columns)
    with pytest.raises(ValueError, match="flat.npz: obs, row 40: a number where the first row has -inf"):
        import_files("other", task, [tmp_path / "flat.npz"])


def test_what_may_be_left_out_is_filled_in(forge, tmp_path):
    task = tasks()["mpe/spread"]
    story = forge.episodes(task, [task.limit] * 3)
    columns = {
        name: np.concatenate([one[name][: task.limit] for one in story]) for name in ("obs", "actions", "rewards")
    }
    np.savez("flat.npz", **columns)
    with pytest.raises(ValueError, match="has no flags of episode ends; write --keys ends"):
        import_files("mine", task, [tmp_path / "flat.npz"])
    told = import_files("mine", task, [tmp_path / "flat.npz"], ends="limit")
    data, _ = loaded(task)
    assert data.timeout.sum() == 3 and np.array_equal(data.state, data.obs.reshape(len(data.obs), -1))
    assert "state: there is none, so it is all observations joined" in told["settled"]


def spoilt(**changes):
    """A fault: arrays of the flat file changed, by row, or left out."""

    def spoil(columns):
        for name, change in changes.items():
            if change is None:
                del columns[name]
            elif isinstance(change, tuple):
                columns[name] = columns[name].copy()
                columns[name][change[0]] = change[1]
            else:
                columns[name] = change(columns[name])
        return columns

    return spoil


FAULTS = {
    "no rewards": (spoilt(rewards=None), "has no rewards under a usual name; it has actions, legal, .*--keys rewards="),
    "an illegal action": (spoilt(legal=(8, False)), r"actions, row 8: agent 0's action \d is not legal \(1 such"),
    "an action that is none": (spoilt(actions=(3, 99)), "actions, row 3: outside 0 to 8"),
    "half an action": (spoilt(actions=lambda a: a + 0.5), "actions, row 0: not the number of an action"),
    "not one-hot": (spoilt(actions=lambda a: np.zeros((*a.shape, 9))), "actions, row 0: not one-hot"),
    "NaN": (spoilt(obs=(5, np.nan)), "obs, row 5: not a finite number"),
    "text": (spoilt(obs=lambda a: a.astype(str)), "obs has values of type 'U', not numbers"),
    "other agents": (spoilt(obs=lambda a: a[:, :2]), r"obs has rows of shape \(2, 30\), but smac/3m \(3 agents\) has"),
    "other lengths": (spoilt(rewards=lambda a: a[:-1]), "rewards has 147 rows, but"),
    "an end that is no flag": (spoilt(terminals=lambda a: a * 2), "terminals, row 6: not a flag"),
    "no end": (
        spoilt(terminals=lambda a: a * 0, truncations=None),
        "only 0 ends are flagged, but the state jumps",
    ),
    "too long": (
        spoilt(terminals=lambda a: a * (np.arange(148) > 146), truncations=None),
        "terminals, row 147: an episode of 148 .*, but .* ends after 60",
    ),
    "a large number": (
        spoilt(rewards=lambda a: np.full(len(a), 2**24 + 1)),
        "rewards, row 0: a whole number that float32 cannot",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_settled_is_refused_and_leaves_nothing(task, story, fault, tmp_path):
    spoil, reason = FAULTS[fault]
    np.savez("flat.npz", **spoil(flat(story)))
    with pytest.raises(ValueError, match=f"flat.npz: {reason}") as refused:
        import_files("mine", task, [tmp_path / "flat.npz"], trust_flags=fault == "too long")
    assert "\n" not in str(refused.value)
    assert not [file for file in (tmp_path / "data").rglob("*") if file.is_file()]


EPISODES = {
    "no flag": ({"truncated": False}, 3, "episode 3: neither terminated nor truncated after 20 of 60 steps; say which"),
    "rows missing": ({"state": np.zeros((3, 48))}, 2, "episode 2: state has 3 rows for 9 actions; give 10"),
    "unknown": ({"reward": 1}, 0, "episode 0: 'reward' is not known; an episode has obs, "),
    "none": ({"actions": np.zeros((0, 3), int)}, 1, "episode 1: has no actions"),
    "another array": ({"legal": None}, 1, r"episode 1 has not the arrays of those before: \['legal'\]"),
}


@pytest.mark.parametrize("fault", EPISODES)
def test_an_episode_at_fault_is_named(task, story, fault, tmp_path):
    change, k, reason = EPISODES[fault]
    story[k] = story[k] | change
    with pytest.raises(ValueError, match=reason):
        import_episodes("mine", task, story)
    assert not [file for file in (tmp_path / "data").rglob("*") if file.is_file()]


def test_episodes_without_a_last_row_and_of_several_authors(task, story, wanted):
    for k, one in enumerate(story):
        one["behaviour"] = k % 2
        one["obs"] = one["obs"][:-1]
    told = import_episodes("mine", task, story)
    data, _ = loaded(task)
    same(data, wanted, without=["obs", "behaviour"])
    assert data.behaviour.tolist() == [0, 1] * 5
    assert told["settled"][-1] == "3 time-outs lack a next observation: the last one is repeated and not learnt from"


def test_continuous_actions_of_another_scale_are_refused(forge, tmp_path):
    task = tasks()["mamujoco/3hopper"]
    story = [one | {"terminated": True} for one in forge.episodes(task, [5, 6])]
    story[1]["actions"][3] *= 4
    with pytest.raises(ValueError, match="episodes: actions, row 9: an action of .*; scale actions to -1 … 1"):
        import_episodes("mine", task, story)


def test_a_name_is_taken_once_unless_it_is_replaced(task, story):
    import_episodes("mine", task, story)
    with pytest.raises(ValueError, match="smac/3m:mine: was imported already; choose another name, or --replace"):
        import_episodes("mine", task, story)
    import_episodes("mine", task, story[:4], replace_it=True)
    assert loaded(task)[1]["episodes"] == 4
    with pytest.raises(ValueError, match="'../mine' cannot name a dataset"):
        import_episodes("../mine", task, story)
    told = json.loads(imported_file(task, "mine").with_suffix(".json").read_text())
    assert told["files"] == {} and told["left_out"] == []
