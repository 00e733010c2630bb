"""Episodes of recorded datasets, filmed: the recorded actions played again from the recorded start."""

import numpy as np

from offmarl.benchmarks.frames.film import Film, Take, watched
from offmarl.datasets.dataset import Dataset
from offmarl.datasets.embedded.recipes import Recipe


def film(recipe: Recipe, data: Dataset, episode: int) -> tuple[Take, bool]:
    """What an episode of a recorded dataset looked like, and whether observations and rewards are the recorded bits.

    Raises ValueError for an episode that there is not, or a simulator without pictures.
    """
    if not 0 <= episode < len(data.behaviour):
        raise ValueError(f"episode {episode}: there are episodes 0 to {len(data.behaviour) - 1}")
    steps = np.flatnonzero(data.episode == episode)
    camera = Film(watched(recipe.task, 1), [0])
    view, same = camera.reset(np.array([start_of(recipe, episode)])), True
    for t in steps:
        same &= np.array_equal(view.obs[0], data.obs[data.rows[t]])
        step = camera.step(data.actions[t][None])
        view = step.view
        same &= bool((np.float32(step.reward[0]) == data.rewards[t]).all())
    camera.close()
    return camera.takes[0], bool(same and step.done[0])


def start_of(recipe: Recipe, episode: int) -> int:
    """The seed from which the recording of an episode began."""
    for quality, share in (recipe.mix or {}).items():
        sibling = recipe.sibling(quality)
        count = round(share * sibling.episodes)
        if episode < count:
            return start_of(sibling, episode)
        episode -= count
    return recipe.seed() + episode
