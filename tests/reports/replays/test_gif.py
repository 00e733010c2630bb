"""Moving pictures: as many as the episode is long, that move, and show what has happened."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from offmarl.reports.replays import gif


def pictures(path):
    with Image.open(path) as image:
        return [(frame.info["duration"], np.asarray(frame.convert("RGB"))) for frame in ImageSequence.Iterator(image)]


@pytest.mark.parametrize("kind", ["units", "particles", "robot", "cells"])
def test_a_film_of_every_kind_lasts_as_the_episode_and_moves(duel, tmp_path, kind):
    size = gif.write(tmp_path / "one.gif", [duel(kind, tick=0.25)])
    found = pictures(tmp_path / "one.gif")
    assert len(found) == 1 + 8 * 0.25 / gif.SECONDS or kind == "cells"  # where pictures are alike, one stands longer
    assert sum(duration for duration, _ in found) == 2000 + gif.REST
    assert size == (tmp_path / "one.gif").stat().st_size < 200_000
    assert (found[0][1] != found[10][1]).any() and (found[10][1] != found[-1][1]).any()


def test_two_are_side_by_side_and_long_ones_leave_steps_out(duel, tmp_path):
    gif.write(tmp_path / "two.gif", [duel(), duel(steps=5, title="MAC-Flow")])
    found = pictures(tmp_path / "two.gif")
    assert found[0][1].shape[1] == 2 * gif.WIDE
    long = duel("particles", steps=2000, tick=1.0)
    gif.write(tmp_path / "long.gif", [long])
    assert len(pictures(tmp_path / "long.gif")) <= gif.MOST + 1


def test_colours_do_not_wander_from_picture_to_picture(duel, tmp_path):
    gif.write(tmp_path / "one.gif", [duel()])
    seen = [{tuple(colour) for colour in picture.reshape(-1, 3)} for _, picture in pictures(tmp_path / "one.gif")]
    blue = (0x0B, 0x62, 0xB8)
    assert all(blue in colours for colours in seen) and len(set().union(*seen)) < 64
