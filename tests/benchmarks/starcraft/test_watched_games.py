"""Games of real StarCraft, watched, on a stand-in: what the frames show is what the packages tell of their units."""

import numpy as np
import pytest
from starcraft_tasks import OMIGA, real

from offmarl.benchmarks.env import View
from offmarl.benchmarks.frames.film import NOBODY, OURS, THEIRS, Film, watched, watched_or_not

TASKS = [real("smac/3m"), real("smacv2/terran_5_vs_5"), real("smac/2c_vs_64zg", **OMIGA)]


def shoot(view: View) -> np.ndarray:
    """Everybody who may shoots at the first enemy, the others stop."""
    return np.where(view.legal[..., 6], 6, 1)


@pytest.fixture
def film(world):
    """A film of some games at once, which are closed after the test."""
    made = []

    def start(task, games=1):
        made.append(Film(watched_or_not(task, games, 1)))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.engine)
def test_frames_show_places_health_and_what_our_units_were_told(world, film, task):
    world.plan(ends={"1": [4, 1]})
    one = film(task)
    view, ordered = one.reset(np.array([1])), []
    for _ in range(4):
        ordered.append(shoot(view)[0])
        view = one.step(shoot(view)).view
    (take,) = one.takes.values()
    frames, scene, I = np.array(take.frames), take.scene, task.agents
    assert frames.shape == (5, I + task.actions - 6, 6) and take.end == "won"
    assert [(body.side, body.agent) for body in scene.bodies[: I + 1]] == [
        *((OURS, k) for k in range(I)),
        (THEIRS, NOBODY),
    ]
    assert {body.name for body in scene.bodies} == {"marine"} and scene.area == (0, 0, 32, 24)
    assert {(body.sight, body.health, body.shield) for body in scene.bodies[:I]} == {(9, 45, 5)}
    assert scene.tick == pytest.approx(8 / 22.4)
    assert (frames[:, :I, 0] == 8).all() and np.array_equal(frames[0, :I, 1], np.arange(I))
    for step, actions in enumerate(ordered):
        shot = actions == 6
        assert np.array_equal(frames[step + 1, :I, 4], np.where(shot, I, NOBODY))
        assert np.array_equal(frames[step + 1, :I, 5] == 1, shot) and shot.any()
        assert frames[step + 1, I, 2] == max(0, frames[step, I, 2] - 20 * shot.sum())
    assert frames[-1, I, 2] == 0 and (frames[1:, I, 3] == 0).all()  # the first enemy is dead
    assert (frames[:, I:, 4] == NOBODY).all() and not frames[:, I:, 5].any()  # of enemies the game does not tell
    assert take.return_ == pytest.approx(sum(k + a.sum() / 1000 for k, a in enumerate(ordered, 1)), abs=1e-4)


def test_a_medivac_heals_and_aims_at_nobody(world, film):
    world.plan(kinds={"0": 1971})
    one = film(real("smacv2/terran_5_vs_5"))
    view = one.reset(np.array([1]))
    for _ in range(2):
        view = one.step(shoot(view)).view
    (take,) = one.takes.values()
    assert [body.name for body in take.scene.bodies[:2]] == ["medivac", "marine"]
    frames = np.array(take.frames)
    assert (frames[:, 0, 4] == NOBODY).all() and not frames[:, 0, 5].any() and frames[:, 1:5, 5].any()


def test_a_game_that_crashes_ends_its_film_with_its_last_picture(world, film):
    world.plan(faults={"1": ["crash", 3]}, ends={"2": [5, -1]})
    one = film(real("smac/3m"), 2)
    one.reset(np.array([1, 2]))
    for _ in range(5):
        one.step(np.ones((2, 3), int))
    broken, lost = one.takes.values()
    assert (broken.end, lost.end) == ("broken", "lost")
    assert (len(broken.frames), len(lost.frames)) == (4, 6)
    assert np.array_equal(broken.frames[-1], broken.frames[-2])


def test_games_are_played_in_waves_watched_or_not(world):
    for env, games in ((watched_or_not(real("smac/3m"), 2, 16), 2), (watched(real("smac/3m"), 16), 1)):
        assert env.lanes == games
        env.close()
