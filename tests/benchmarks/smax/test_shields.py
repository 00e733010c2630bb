"""Shields, armour and bonuses: StarCraft's damage, one game loop at a time."""

import dataclasses

import jax.numpy as jnp
import pytest

from offmarl.benchmarks.smax.units import SHIELD_DELAY, UNITS, blow

LOOP = 1 / 22.4  # seconds


@pytest.mark.parametrize(
    ("unit", "target", "to_shield", "to_health"),
    [
        ("marine", "marine", 6, 6),
        ("marine", "marauder", 6, 5),
        ("marauder", "marauder", 20, 19),
        ("marauder", "zealot", 10, 9),
        ("stalker", "stalker", 18, 17),
        ("stalker", "zealot", 13, 12),
        ("zealot", "stalker", 16, 14),  # two hits
        ("zealot", "marine", 16, 16),
        ("colossus", "zealot", 30, 28),
        ("zergling", "colossus", 5, 4),
        ("medivac", "marauder", 0, 0),
    ],
)
def test_damage_is_the_games(unit, target, to_shield, to_health):
    assert blow(UNITS[unit], UNITS[target]) == (to_shield, to_health)


def test_every_hit_does_half_a_point_whatever_the_armour():
    weak = dataclasses.replace(UNITS["zealot"], damage=2.0)
    assert blow(weak, dataclasses.replace(UNITS["marauder"], armour=5.0)) == (2.0, 1.0)


def test_shields_are_hit_before_health_and_armour_protects_health_only(field):
    at = [(10, 16), (11, 16)]
    for before, after in ((150.0, 144), (103.0, 100 - 5 / 2), (100.0, 95), (3.0, 0)):
        scene = field({"marine": 1}, {"zealot": 1}, at).hurt(u1=before)
        hit = scene.step(attack={0: 1})
        assert hit.health[1] == pytest.approx(after, abs=1e-4)
        assert hit.shield[1] == pytest.approx(max(after - 100, 0), abs=1e-4)


def test_shields_grow_after_ten_seconds_of_the_normal_clock_without_a_hit_and_health_does_not(field):
    assert pytest.approx(10 / 1.4) == SHIELD_DELAY
    scene = field({"marine": 1}, {"zealot": 1}, [(10, 16), (30, 16)]).hurt(u1=80.0)
    calm = jnp.array([0.0, SHIELD_DELAY - 1.5 * LOOP])
    scene.state = scene.state.replace(unit_calm=calm)
    early = scene.step()
    scene.state = early.raw
    late = scene.step()
    assert (early.health[1], early.shield[1]) == (80, 0)
    assert late.shield[1] == pytest.approx(2.8 * LOOP, abs=1e-5)
    assert late.health[1] == pytest.approx(80 + 2.8 * LOOP, abs=1e-4)


def test_a_hit_makes_shields_wait_again_and_they_never_exceed_themselves(field):
    scene = field({"marine": 1}, {"zealot": 1}, [(10, 16), (11, 16)]).hurt(u1=149.99)
    scene.state = scene.state.replace(unit_calm=jnp.full(2, 60.0))
    assert scene.step().shield.tolist() == [0, 50]
    hit = scene.step(attack={0: 1}).raw
    assert float(hit.unit_calm[1]) == 0 and float(hit.unit_shield[1]) == pytest.approx(43.99, abs=1e-4)
    scene.state = hit
    assert scene.step().shield[1] == pytest.approx(43.99, abs=1e-4)


def test_the_dead_grow_no_shield_and_the_living_do_whatever_is_left_of_them(field):
    scene = field({"marine": 1}, {"zealot": 1}, [(10, 16), (30, 16)]).hurt(u1=0.0)
    scene.state = scene.state.replace(unit_calm=jnp.full(2, 60.0))
    assert (scene.step().health[1], scene.step().shield[1]) == (0, 0)
    scene.hurt(u1=0.5)
    assert scene.step().shield[1] == pytest.approx(2.8 * LOOP, abs=1e-5)
