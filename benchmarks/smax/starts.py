"""Who begins a battle and where: the two groups of SMAC's maps, or SMACv2's random teams and places."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

SIZE, CENTRE = 32.0, 16.0  # of the map, both axes
CORNERS = np.array([[0.0, 0.0], [0.0, SIZE], [SIZE, SIZE], [SIZE, 0.0]])
INNER = 2.0  # how far from the centre, along both axes, the diagonals of SMACv2's surrounded starts end
UNEVEN = 0.1  # cells by which places on a SMAC map vary: without it round-off would decide every battle's opening alike
BUFFER = 1.0  # cells left of the middle in which its reflected starts place nobody
GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
TIGHTNESS = 1.54  # of a sunflower's seeds: the shortest distance of two, where the k-th is the root of k away


def crowd(count: int, apart: float) -> np.ndarray:
    """Places around the origin [count,2], at least `apart` from each other.

    The game puts units that are created on one point side by side; here they lie like a sunflower's seeds.
    """
    k = np.arange(count)
    radius, angle = apart / TIGHTNESS * np.sqrt(k + 0.5), GOLDEN_ANGLE * k
    at = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    return at - at.mean(0)


class FixedStarts:
    """The start of a SMAC map: each side is created on one of the `points`, its units' types in the order of `sides`.

    Within a type, units are numbered by x, then y, as SMAC numbers the agents; neighbours are `apart`.
    """

    def __init__(self, points: Sequence[Sequence[float]], sides: Sequence[Sequence[str]], apart: float):
        self.places = jnp.asarray(np.concatenate([self._group(*side, apart) for side in zip(points, sides)]))

    def _group(self, point: Sequence[float], kinds: Sequence[str], apart: float) -> np.ndarray:
        at = np.asarray(point) + crowd(len(kinds), apart)
        for kind in set(kinds):
            rows = np.flatnonzero(np.array(kinds) == kind)
            at[rows] = at[rows[np.lexsort((at[rows, 1], at[rows, 0]))]]
        return at.astype(np.float32)

    def generate(self, key: jax.Array) -> jax.Array:
        """Places of all units [K,2]; the same to a tenth of a cell."""
        return self.places + jax.random.uniform(key, self.places.shape, minval=-UNEVEN, maxval=UNEVEN)


class RandomStarts:
    """SMACv2's starts ("surrounded_and_reflect", p = 0.5) of two sides of `size` units.

    Source: oxwhirl/smacv2 distributions.py. Half of the battles begin with the allies anywhere in the left half and the
    enemies as their mirror image, half with the allies in the centre and the enemies in one to four groups on the
    diagonals.
    """

    def __init__(self, size: int, apart: float):
        self.size, self.crowd = size, jnp.asarray(crowd(size, apart), jnp.float32)

    def generate(self, key: jax.Array) -> jax.Array:
        """Places of all units [2 * size,2], the allies first."""
        which, where = jax.random.split(key)
        return jnp.where(jax.random.uniform(which) > 0.5, self.surrounded(where), self.reflected(where))

    def reflected(self, key: jax.Array) -> jax.Array:
        """The sides face each other as in a mirror."""
        ours = jax.random.uniform(key, (self.size, 2)) * jnp.array([CENTRE - BUFFER, SIZE])
        return jnp.concatenate([ours, jnp.array([SIZE, 0.0]) + ours * jnp.array([-1.0, 1.0])])

    def surrounded(self, key: jax.Array) -> jax.Array:
        """The allies in the centre, each enemy in one of the groups."""
        k_groups, k_member, k_way, k_corner = jax.random.split(key, 4)
        member = jax.random.randint(k_member, (self.size,), 0, jax.random.randint(k_groups, (), 1, len(CORNERS) + 1))
        corner = jax.random.permutation(k_corner, jnp.asarray(CORNERS, jnp.float32))
        inner = CENTRE + INNER * jnp.sign(corner - CENTRE)
        way = jax.random.uniform(k_way, (len(CORNERS), 1))
        before = jnp.tril(member[:, None] == member[None], -1).sum(1)  # how many of its group come before each
        theirs = (way * inner + (1 - way) * corner)[member] + self.crowd[before]
        return jnp.clip(jnp.concatenate([CENTRE + self.crowd, theirs]), 0.0, SIZE)


class MirroredTeams:
    """SMACv2's weighted teams: one random roster for both sides, never of the exceptional unit alone."""

    def __init__(self, size: int, weights: Sequence[float], exception: int):
        self.size, self.exception = size, exception
        self.log_weights = jnp.log(jnp.array(weights))

    def generate(self, key: jax.Array) -> jax.Array:
        """Unit types of both sides, uint8 [2 * size]."""
        team = jax.random.categorical(key, self.log_weights, shape=(self.size,))
        fallback = jnp.where(jnp.arange(self.size) == 0, 0, team)
        team = jnp.where((team == self.exception).all(), fallback, team).astype(jnp.uint8)
        return jnp.concatenate([team, team])
