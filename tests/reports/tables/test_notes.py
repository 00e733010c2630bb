"""The text below a table."""

import pytest

MEANS = {0: 10.0, 1: 11.0, 2: 12.0}  # of the last evaluation: its 95 % interval is 11 ± 2.48


@pytest.fixture
def looks(tmp_path, write_run, build):
    """The notes below a table of 3m good, where BC's evaluation before the last was so much lower in each seed."""

    def notes(gain, seeds=MEANS):
        for seed, mean in ((seed, MEANS[seed]) for seed in seeds):
            evaluations = [
                {"step": step, "play": "own", "returns": [value - 1.0, value + 1.0], "won": None, "lengths": [9, 9]}
                for step, value in [(1000, mean - gain), (2000, mean)]
            ]
            write_run(tmp_path, "smac/3m", "good", "bc", seed, mean, evaluations=evaluations)
        return [note for note in build(tmp_path).notes if note.startswith("Still moving")]

    return notes


@pytest.mark.parametrize("gain", [2.5, -2.5])
def test_a_cell_is_still_moving_when_its_last_step_leaves_the_interval(looks, gain):
    (note,) = looks(gain)
    assert note.endswith("in 1 of 1 cells (BC on 3m good).")


@pytest.mark.parametrize(("gain", "seeds"), [(2.4, MEANS), (-2.4, MEANS), (9.0, [0, 1])])
def test_a_cell_is_not_moving_within_its_interval_or_without_one(looks, gain, seeds):
    assert looks(gain, seeds) == []
