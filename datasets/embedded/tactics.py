"""Scripted tactics on SMAC-shaped views, where training behaviour policies is too slow or a clear tactic is wanted.

They read the true state (all positions), as SMAC's own heuristics do, and take turns by episode: all units of an
episode share one tactic, which makes the joint action multi-modal.
"""

from dataclasses import dataclass

import numpy as np

from offmarl.benchmarks.env import View
from offmarl.benchmarks.smax.units import UNITS
from offmarl.benchmarks.tasks import Task

STOP, NORTH, SOUTH, EAST, WEST, ATTACK = 1, 2, 3, 4, 5, 6
DIRECTIONS = np.array([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])  # in the order of the actions
HALF_MAP, MAP = 16.0, 32.0


@dataclass(frozen=True)
class Tactic:
    """Move to a lane first, then attack the nearest enemy in reach."""

    task: Task  # with a fixed roster
    lane: float | None = (
        None  # the y that units move to before they attack; on 2c_vs_64zg beyond the corridor is a cliff
    )
    reach: float = 6.0  # distance at which enemies are attacked; a small one lets them come too close
    give_way: float = 0.0  # retreat from enemies nearer than this while the weapon reloads
    panic: float = 0.0  # run along the lane, without an attack, from enemies nearer than this

    def __call__(self, view: View, rng: np.random.Generator) -> np.ndarray:
        """Joint actions [E,I]."""
        here, reload, foes = self._positions(view.state)
        offset = foes[:, None] - here[:, :, None]  # [E, I, M, 2]
        distance = np.linalg.norm(offset, axis=-1)
        distance = np.where(np.isnan(distance), np.inf, distance)
        nearest = distance.argmin(-1)
        gap = distance.min(-1)
        towards = np.take_along_axis(np.nan_to_num(offset), nearest[..., None, None], 2)[:, :, 0]

        in_reach = view.legal[:, :, ATTACK:] & (distance <= self.reach)
        target = np.where(in_reach, distance, np.inf).argmin(-1)
        shoots = in_reach.any(-1)
        wish = np.where((gap < 9.0)[..., None], towards, [1.0, 0.0])
        if self.lane is not None:
            off_lane = self.lane - here[..., 1]
            away = np.stack([np.zeros_like(off_lane), off_lane], -1)
            in_place = np.abs(off_lane) < 1.2
            wish = np.where(in_place[..., None], wish, away)
            shoots &= in_place | (gap > 4.0)
        if self.give_way:
            flees = (gap < self.give_way) & (reload > 0.3)
            wish = np.where(flees[..., None], -towards, wish)
            shoots &= ~flees
        if self.panic:
            flees = gap < self.panic
            wish = np.where(flees[..., None], -towards * [1.0, 0.1], wish)
            shoots &= ~flees
        moves = np.where(view.legal[:, :, NORTH:ATTACK], wish @ DIRECTIONS.T, -np.inf)
        step = np.where(np.isfinite(moves).any(-1), NORTH + moves.argmax(-1), STOP)
        action = np.where(shoots, ATTACK + target, step)
        return np.where(view.legal[:, :, 0], 0, action)  # the dead can only do nothing

    def _positions(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Allies' positions [E,I,2] and reload [E,I], enemies' positions [E,M,2] (NaN for the dead)."""
        roster, n = self.task.roster, self.task.agents
        m = self.task.actions - ATTACK
        shield = [any(UNITS[u].shield for u in roster[side]) for side in ("allies", "enemies")]
        bits = roster.get("type_bits", 0)
        wide, narrow = 4 + shield[0] + bits, 3 + shield[1] + bits
        mine = state[:, : n * wide].reshape(-1, n, wide)
        theirs = state[:, n * wide : n * wide + m * narrow].reshape(-1, m, narrow)
        foes = np.where(theirs[..., :1] > 0, theirs[..., 1:3] * MAP + HALF_MAP, np.nan)
        return mine[..., 2:4] * MAP + HALF_MAP, mine[..., 1], foes
