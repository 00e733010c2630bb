"""StarCraft II units at the Faster speed, which replace SMAX's own.

SMAX 0.2.0 mixes the Normal and the Faster speed and gives a few units other damage than the game does; these are the
values of game version 4.10. SMAX has one pool of health: the simulation adds health and shield, and the SMAC-shaped
view splits them again.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """One unit type. Distances in map cells, times in seconds of game time."""

    speed: float
    damage: float
    range: float
    sight: float
    radius: float
    health: float
    cooldown: float
    shield: float = 0.0
    bonus_vs_light: float = 0.0
    light: bool = False
    area: str = ""  # "line" (colossus), "blast" (baneling, which dies in it) or none
    heals: bool = False
    climbs: bool = False  # walks over cliffs


UNITS = {
    "marine": Unit(3.15, 6, 5, 9, 0.375, 45, 0.61, light=True),
    "marauder": Unit(3.15, 10, 6, 10, 0.5625, 125, 1.07),
    "medivac": Unit(3.5, 0, 4, 11, 0.75, 150, 1.0, heals=True),
    "stalker": Unit(4.13, 13, 6, 10, 0.625, 80, 1.34, shield=80),
    "zealot": Unit(3.15, 16, 2, 9, 0.5, 100, 0.86, shield=50, light=True),
    "colossus": Unit(3.15, 20, 7, 10, 1.0, 200, 1.07, shield=150, bonus_vs_light=10, area="line", climbs=True),
    "zergling": Unit(4.13, 5, 2, 8, 0.375, 35, 0.497, light=True),
    "hydralisk": Unit(3.15, 12, 5, 9, 0.625, 80, 0.59, light=True),
    "baneling": Unit(3.5, 16, 2, 8, 0.375, 30, 0.8, bonus_vs_light=19, area="blast"),
    # SMAX's enemy never loses its target, so no script we tried wins 5m_vs_6m. A longer cooldown of the enemy's marines
    # restores the balance of the real map (less damage would not: as many hits would kill).
    "slow_marine": Unit(3.15, 6, 5, 9, 0.375, 45, 0.90, light=True),
}
