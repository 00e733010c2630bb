"""Where episodes end: by terminals or truncations, by the clock, and where a recording broke off."""

import dataclasses

import numpy as np
import pytest

from offmarl.datasets.cache import no_progress
from offmarl.datasets.check import inspect_dataset
from offmarl.datasets.embedded import recipes
from offmarl.datasets.public.boundaries import find_seams, learn_seams
from offmarl.datasets.public.columns import SLICE_BYTES
from offmarl.datasets.sampler import Sampler
from offmarl.experiments.cli import main


def walks(task, forge, lengths, seed=0):
    """Episodes that move smoothly, and start apart."""
    story = forge.episodes(task, lengths, seed)
    rng = np.random.default_rng(seed)
    for one in story:
        for name in ("obs", "state"):
            steps = 0.01 * one[name]
            steps[0] = rng.uniform(-1, 1, steps[0].shape)
            one[name] = np.cumsum(steps, 0)
        if not task.discrete:
            one["rewards"][:] = one["rewards"][:, :1]
    return story


def flagged(rows, terminals, truncations, agents):
    """The columns with these rows flagged, a flag for each agent."""
    flags = {name: np.zeros((len(rows["obs"]), agents), np.float32) for name in ("ends", "timeouts")}
    flags["ends"][terminals], flags["timeouts"][truncations] = 1, 1
    return rows | flags


def last_rows(lengths):
    return np.cumsum(lengths) - 1


def lengths_of(data):
    return np.bincount(data.episode).tolist()


@pytest.fixture
def marines(public_data, forge):
    """Write rows as OG-MARL's 3m and load them: the dataset and its card."""

    def load(rows, without=(), quality="good"):
        entry = public_data("og_marl", "smac/3m", quality)
        kept = {name: values for name, values in rows.items() if name not in without}
        forge.write_vault(entry.paths()[0], [kept])
        return entry.load()

    load.task = public_data("og_marl", "smac/3m", "good").task
    return load


SIX = [7, 12, 9, 20, 5, 11]


# Which ends are marked as terminal, and which as truncation.
MARKS = {
    "terminals, and truncations for the rest": ([0, 2, 3, 5], [1, 4]),
    "truncations alone": ([], [0, 1, 2, 3, 4, 5]),
    "both at the same rows": ([0, 1, 2, 3, 4, 5], [1, 4]),
}


@pytest.mark.parametrize("marks", MARKS)
def test_an_end_is_a_terminal_or_a_truncation(marks, marines, forge):
    story, last = walks(marines.task, forge, SIX), last_rows(SIX)
    terminals, truncations = MARKS[marks]
    data, card = marines(flagged(forge.rows(story), last[terminals], last[truncations], 3))
    assert lengths_of(data) == SIX and card["broken_off"] == 0 and card["left_out"] == []
    assert np.flatnonzero(data.timeout).tolist() == last[truncations].tolist()
    assert np.flatnonzero(data.done).tolist() == np.setdiff1d(last, last[truncations]).tolist()


def test_a_vault_may_have_truncations_and_no_terminals(marines, forge):
    story, last = walks(marines.task, forge, SIX), last_rows(SIX)
    data, _ = marines(flagged(forge.rows(story), [], last, 3), without=["ends"])
    assert lengths_of(data) == SIX and data.timeout.sum() == 6 and not data.done.any()
    with pytest.raises(ValueError, match="'terminals' is missing"):
        marines(forge.rows(story), without=["ends"], quality="poor")


def test_an_end_is_one_for_each_agent_whatever_marks_it(marines, forge):
    """Dead agents are flagged early; where the clock ends the battle, terminals of the dead meet truncations."""
    story, last = walks(marines.task, forge, SIX), last_rows(SIX)
    rows = flagged(forge.rows(story), last, [], 3)
    rows["ends"][last[1] - 3 : last[1] + 1, 0] = 1
    rows["ends"][last[1], 1:], rows["timeouts"][last[1], 1:] = 0, 1
    data, _ = marines(rows)
    assert lengths_of(data) == SIX and np.flatnonzero(data.timeout).tolist() == [last[1]]


@pytest.mark.parametrize("where", ["the transition", "the delimiter", "both"])
def test_a_truncation_before_or_at_a_delimiter_is_one_time_out(where, public_data, forge):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    story = walks(entry.task, forge, SIX)
    rows, last = forge.rows(story, delimited=True), last_rows(np.array(SIX) + 1)
    marked = {"the transition": [last[2] - 1], "the delimiter": [last[2]], "both": [last[2] - 1, last[2]]}[where]
    forge.write_vault(entry.paths()[0], [flagged(rows, last, marked, 3)])
    data, card = entry.load()
    assert lengths_of(data) == SIX and card["left_out"] == []
    assert np.array_equal(data.actions, np.concatenate([one["actions"] for one in story]))
    assert np.flatnonzero(data.timeout).tolist() == [last_rows(SIX)[2]]


def test_episodes_with_illegal_actions_are_left_out_and_told(marines, forge, capsys):
    story, last = walks(marines.task, forge, SIX), last_rows(SIX)
    rows = forge.rows(story)
    for row, agent in ((last[2], 1), (last[2] - 3, 2), (last[3] - 2, 0)):
        rows["legal"][row, agent, rows["actions"][row, agent]] = False
    data, card = marines(rows)
    assert lengths_of(data) == [7, 12, 5, 11]
    row, action = last[2] - 3, rows["actions"][last[2] - 3, 2]
    assert f"actions, row {row}: agent 2's action {action} is not legal" in card["left_out"][0]
    assert "smac/3m:good (og_marl): 2 episodes are left out, first" in capsys.readouterr().err
    rows["legal"][last[0], 0] = rows["legal"][last[1], 0] = rows["legal"][last[4], 0] = False
    with pytest.raises(ValueError, match=rf"row {last[0]}: agent 0's action \d is not legal; .* downloads it again"):
        marines(rows, quality="poor")


def test_an_episode_cut_at_the_limit_is_a_time_out_and_counted_by_data_check(marines, forge, capsys):
    lengths = [marines.task.limit, 7, marines.task.limit, 9]
    data, card = marines(forge.rows(walks(marines.task, forge, lengths)))
    assert np.flatnonzero(data.timeout).tolist() == last_rows(lengths)[[0, 2]].tolist()
    assert np.flatnonzero(data.done).tolist() == last_rows(lengths)[[1, 3]].tolist()
    main(["data", "check", "smac/3m:good", "--source", "og_marl"])
    assert "2 end at the time limit" in capsys.readouterr().out


@pytest.mark.parametrize("recorded", [True, False])
def test_what_follows_the_clock_is_learnt_from_where_a_layout_has_it(recorded, public_data, forge):
    """OMAR's own files have it, the vault of the same episodes has not."""
    entry, limit = public_data("omar", "mpe/spread", "expert"), 25
    story = walks(entry.task, forge, [limit] * 8)
    following = np.concatenate([one["obs"][1:] for one in story])
    if recorded:
        forge.write_npy(entry.paths()[1] / "seed_0_data", forge.rows(story), following)
    else:
        forge.write_vault(entry.paths()[0], [forge.rows(story)])
    batch = Sampler(entry.load()[0], [0, 1], timeout_bootstrap=True).sample(512)
    assert (batch.number % limit == limit - 1).any() == recorded
    assert not batch.done.any()
    assert np.array_equal(batch.next_obs, following[batch.number])


@pytest.mark.parametrize("known", [5, 30])
@pytest.mark.parametrize("delimited", [False, True])
def test_a_recording_that_broke_off_is_cut_at_its_jump_counted_and_said(known, delimited, public_data, forge, capsys):
    source, name = ("omiga", "mamujoco/3hopper:expert") if delimited else ("og_marl", "smac/3m:good")
    entry = public_data(source, *name.split(":"))
    lengths = np.random.default_rng(1).integers(4, 25, known).tolist()
    story, lost = walks(entry.task, forge, lengths), [1, 3]
    rows = forge.rows(story, delimited)
    last = last_rows(np.array(lengths) + delimited)
    rows["ends"][last[lost]] = 0
    forge.write_vault(entry.paths()[0], [rows])
    data, card = entry.load()
    assert lengths_of(data) == lengths and card["broken_off"] == 2
    assert np.flatnonzero(data.timeout).tolist() == last_rows(lengths)[lost].tolist()
    assert f"{name} ({source}): 2 episodes broke off" in capsys.readouterr().err
    assert any(not sound and "2 episodes broke off" in text for sound, text in inspect_dataset(data, card))


def test_a_recording_of_episodes_of_one_length_begins_anew_where_it_broke_off(public_data, forge):
    entry = public_data("omar", "mpe/spread", "medium")
    lengths = [25] * 12 + [9] + [25] * 3
    rows = forge.rows(walks(entry.task, forge, lengths))
    rows["ends"][:] = 0
    rows["state"] = rows["obs"].reshape(len(rows["obs"]), -1)
    forge.write_vault(entry.paths()[0], [rows])
    data, card = entry.load()
    assert lengths_of(data) == lengths and data.timeout.sum() == 16 and card["broken_off"] == 1


@pytest.mark.parametrize("task", ["mpe/spread", "smac/3m"])
def test_a_jump_inside_an_episode_is_no_cut(task, public_data, forge):
    """Robots collide and soldiers die: only a jump to what looks like a start is the end of a recording."""
    entry = public_data("omar", task, "medium") if task == "mpe/spread" else public_data("og_marl", task, "good")
    story = walks(entry.task, forge, [25] * 20)
    for one in story:
        one["state"][0, :4] = 1.0  # health at the start
        one["state"][1:, :4] = 0.9
        one["state"][10:] += 5.0
    rows = forge.rows(story)
    if task == "mpe/spread":
        rows["ends"][:] = 0
    forge.write_vault(entry.paths()[0], [rows])
    data, card = entry.load()
    assert lengths_of(data) == [25] * 20 and card["broken_off"] == 0


def test_states_that_tell_nothing_cut_nothing(marines, forge):
    data, card = marines(forge.rows(forge.episodes(marines.task, [15] * 40)))
    assert lengths_of(data) == [15] * 40 and card["broken_off"] == 0


def test_one_bad_episode_costs_itself_and_is_named(marines, forge, capsys):
    """Over-long, without a jump inside; what is wrong in it is nobody's concern."""
    lengths = [7, marines.task.limit + 5, 9, 12]
    story = walks(marines.task, forge, lengths)
    rows = forge.rows(story)
    rows["obs"][20] = np.nan
    rows["actions"][21] = 99
    data, card = marines(rows)
    assert lengths_of(data) == [7, 9, 12]
    sound = [story[k] for k in (0, 2, 3)]
    expected = forge.canonical(sound, ("obs", "state", "legal"))
    for name, values in expected.arrays().items():
        assert np.array_equal(data.arrays()[name], values), name
    (line,) = card["left_out"]
    assert "row 71: an episode of 65 transitions" in line
    assert "1 episodes are left out" in capsys.readouterr().err


def test_an_end_without_a_transition_costs_itself(public_data, forge):
    entry = public_data("omiga", "mamujoco/3hopper", "expert")
    rows = forge.rows(walks(entry.task, forge, [9, 5, 6]), delimited=True)
    rows["ends"][10] = 1  # the row after a delimiter
    forge.write_hdf5(entry.paths()[1], rows)
    data, card = entry.load()
    assert lengths_of(data) == [9, 4, 6] and "row 10: an end without a transition" in card["left_out"][0]


def test_where_every_other_episode_is_bad_the_convention_is_wrong(marines, forge):
    lengths = [marines.task.limit + 1] * 3 + [7] * 3
    with pytest.raises(ValueError, match="are the flagged rows delimiters"):
        marines(forge.rows(walks(marines.task, forge, lengths)))


@pytest.mark.parametrize("padding", [-np.inf, np.nan])
def test_the_preys_padding_is_cut_off_before_anything_is_judged(padding, public_data, forge):
    """OG-MARL pads the prey's shorter observation with -inf."""
    entry = public_data("omar", "mpe/tag", "medium")
    whole = dataclasses.replace(entry.task, agents=4, state=64)
    story = walks(whole, forge, [25] * 10)
    for one in story:
        one["obs"][:, 3, 14:] = padding
        one["state"] = one["obs"].reshape(len(one["obs"]), -1)
        one["actions"][:, 3], one["rewards"][:, 3] = padding, padding
    rows = forge.rows(story)
    rows["ends"][:] = 0
    rows["ends"][::7, 3] = 1  # of the prey alone
    forge.write_vault(entry.paths()[0], [rows])
    data, card = entry.load()
    assert lengths_of(data) == [25] * 10 and np.isfinite(data.obs).all()
    seen = card["boundaries"]
    assert all(np.isfinite(seen[name]) for name in seen if name.startswith("jump")) and seen["jump_inside"] > 0


def test_both_versions_of_omars_halfcheetah_read_the_same(public_data, forge):
    """Until November 2024 its state was repeated for each agent."""
    task, found = public_data("omar", "mamujoco/2halfcheetah", "medium").task, []
    rows = forge.rows(walks(task, forge, [1000, 1000]))
    rows["ends"][:] = 0
    repeated = rows | {"state": np.repeat(rows["state"][:, None], 2, 1)}
    for quality, columns in (("medium", rows), ("expert", repeated)):
        entry = public_data("omar", "mamujoco/2halfcheetah", quality)
        forge.write_vault(entry.paths()[0], [columns])
        found.append(entry.load()[0].arrays())
    assert all(np.array_equal(values, found[1][name]) for name, values in found[0].items())


STRAY = ["vault/.DS_Store", "vault/metadata.json~", "vault/d/.DS_Store", "vault/._metadata.json", "vault/notes/x.txt"]
STRAY += [
    "npy/Thumbs.db",
    "npy/seed_0_data/obs_0.npy~",
    "npy/seed_0_data/.obs_0.npy.swp",
    "npy/seed_old_data/obs_0.npy",
]


@pytest.mark.parametrize("stray", STRAY)
def test_a_stray_file_changes_no_key_and_nothing_that_is_read(stray, public_data, forge):
    kind, _, place = stray.partition("/")
    entry = public_data("omar", "mpe/spread", "medium")
    story = walks(entry.task, forge, [25] * 4)
    folder = entry.paths()[0 if kind == "vault" else 1]
    rows = forge.rows(story)
    if kind == "vault":
        forge.write_vault(folder, [rows])
    else:
        forge.write_npy(folder / "seed_0_data", rows, np.concatenate([one["obs"][1:] for one in story]))
    key, (_, card) = entry.key(), entry.load()
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_bytes(b"stray")
    assert entry.key() == key and entry.load()[1] == card == entry.ready()
    again = entry.make()
    assert again["files"] == card["files"] and again["sha256"] == card["sha256"]


@pytest.mark.parametrize("name", ["metadata.json", "manifest.ocdbt", "d"])
def test_every_file_that_is_read_is_in_the_key(name, public_data, forge):
    entry = public_data("og_marl", "smac/3m", "good")
    forge.write_vault(entry.paths()[0], [forge.rows(walks(entry.task, forge, [5, 6]))])
    key, place = entry.key(), entry.found() / name
    file = place if place.is_file() else max(place.iterdir())
    file.write_bytes(file.read_bytes() + b" ")
    assert entry.key() != key


def test_a_state_that_rarely_changes_cuts_no_episode():
    """Five episodes of twenty steps; in three of them a door opens once."""
    door = np.zeros((100, 2))
    for start, opened in (10, 20), (47, 60), (85, 100):
        door[start:opened, 1] = 1.0
    ends = np.array([19, 39, 59, 79])
    assert np.setdiff1d(find_seams([(0, door)], learn_seams(door, ends)), ends).size == 0
    still = np.zeros((100, 2))
    assert find_seams([(0, still)], learn_seams(still, ends)).size == 0


def test_seams_are_found_wherever_slices_end(public_data, forge, monkeypatch):
    from offmarl.datasets.public import columns

    entry = public_data("og_marl", "smac/3m", "good")
    rows = forge.rows(walks(entry.task, forge, SIX))
    rows["ends"][last_rows(SIX)[2]] = 0
    forge.write_vault(entry.paths()[0], [rows])
    first = dict(entry.load()[0].arrays())
    for count in (20, 28, 29, 41):
        assert 8 * 48 * count < SLICE_BYTES
        monkeypatch.setattr(columns, "SLICE_BYTES", 8 * 48 * count)
        assert entry.make()["broken_off"] == 1
        assert all(np.array_equal(values, first[name]) for name, values in entry.load()[0].arrays().items())


@pytest.mark.parametrize(
    "task, quality", [("mpe/spread", "expert"), ("mpe/tag", "medium"), ("mamujoco/3hopper", "medium")]
)
def test_in_real_simulators_no_step_is_taken_for_a_cut_and_lost_ends_are_found(task, quality):
    """Robots that collide jump further than to their next start; every tenth end is lost."""
    recipe = dataclasses.replace(recipes.catalogue()[task, quality], episodes=120 if task != "mamujoco/3hopper" else 24)
    data = recipe.record(no_progress)
    states, ends = data.state[data.rows], np.flatnonzero(data.done | data.timeout)[:-1]
    known = np.delete(ends, slice(None, None, 10))
    found = find_seams([(0, states)], learn_seams(states, known))
    assert len(np.setdiff1d(found, ends)) == 0
    assert np.isin(np.setdiff1d(ends, known), found).mean() > 0.9
