"""The player in a browser, opened from disk: by mouse, by keyboard, on a phone, in the dark, and on damaged files."""

import gzip
import re
from base64 import b64decode, b64encode

import pytest
from browser import WIDE, chromium, needs_browser, opened, sync_api  # noqa: F401

from offmarl.reports.replays import page as replays

pytestmark = needs_browser
DRAWN = "canvas => canvas.toDataURL()"


@pytest.fixture
def watch(opened, duel, tmp_path):  # noqa: F811
    """Open the page of two methods on one start, and a second scene; `change` changes its text."""

    def watch(kind="units", change=lambda text: text, **how):
        scenes = {"worst": [duel(kind), duel(kind, steps=5, title="MAC-Flow")], "best": [duel(kind)]}
        replays.write(tmp_path / "page.html", "A <b>duel</b>", scenes)
        path = tmp_path / "page.html"
        path.write_text(change(path.read_text()))
        page = opened(path, **how)
        page.wait_for_selector(".controls, .refused")
        return page

    return watch


def facts(page, scene=0):
    """What is said beside the pictures of a scene: returns so far and ends."""
    place = page.locator(".replays").nth(scene)
    return place.locator(".now").all_inner_texts(), place.locator(".end").all_inner_texts()


def test_two_players_scrub_in_step_and_end_with_the_stored_return(watch):
    page = watch()
    assert facts(page) == (["return so far 0.00"] * 2, ["", ""])
    page.get_by_label("Step of the episode").first.fill("3")
    assert facts(page) == (["return so far 1.50"] * 2, ["", ""])
    page.get_by_role("button", name="End", exact=True).first.click()
    now, end = facts(page)
    assert now == ["return so far 4.00", "return so far 2.50"]  # the shorter one rests on its last step
    assert end == [f"won, return {n}, the stored episode (return {n})" for n in ("4.00", "2.50")]
    assert facts(page, 1)[0] == ["return so far 0.00"]  # another scene is another player
    assert page.locator("h1").inner_text() == "A <b>duel</b>"


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_it_plays_to_the_end_and_can_be_paused(watch, motion):
    page = watch(reduced_motion=motion)
    first = page.locator("canvas").first.evaluate(DRAWN)
    page.get_by_label("Speed").first.select_option("0.25")
    page.get_by_role("button", name="Play").first.click()
    page.get_by_role("button", name="Pause").first.click()
    page.get_by_label("Speed").first.select_option("8")
    page.get_by_role("button", name="Play").first.click()
    sync_api.expect(page.locator("output").first).to_have_text("8 / 8")
    sync_api.expect(page.get_by_role("button", name="Play")).to_have_count(2)  # it rests, a picture later
    assert page.locator("canvas").first.evaluate(DRAWN) != first


def test_the_keyboard_alone_suffices(watch):
    page = watch()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Play"
    counter = page.locator("output").first
    for key, shown in {"ArrowRight": 1, "ArrowLeft": 0, "End": 8, "Home": 0}.items():
        page.keyboard.press(key)
        assert counter.inner_text() == f"{shown} / 8"
    page.keyboard.press("Space")
    sync_api.expect(page.locator("output").first).to_have_text("8 / 8")
    sync_api.expect(page.get_by_role("button", name="Play")).to_have_count(2)
    for _ in range(5):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "range"
    page.keyboard.press("ArrowLeft")
    assert counter.inner_text() == "7 / 8"


def test_pictures_have_names_and_actions_are_told(watch):
    page = watch()
    assert page.get_by_role("img").first.get_attribute("aria-label") == (
        "BC on smac/3m good, episode 7: 8 steps, won, return 4.00, the stored episode (return 4.00)"
    )
    rows = page.locator(".view").first.locator("tr")
    assert rows.all_inner_texts() == ["agent 0\t–", "agent 1\t–"]
    page.get_by_role("button", name="A step on").first.click()
    assert rows.all_inner_texts() == ["agent 0\tattacks marine 0", "agent 1\tstop"]
    before = page.locator("canvas").first.evaluate(DRAWN)
    page.get_by_label("What is seen by").first.select_option("agent 1")
    assert page.locator("canvas").first.evaluate(DRAWN) != before
    assert page.locator("button, select, input, output").evaluate_all("all => all.every(e => e.checkVisibility())")


@pytest.mark.parametrize("kind", ["units", "particles", "robot", "cells"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_is_drawn_in_both_schemes_and_fits_a_phone(watch, kind, scheme):
    page = watch(kind, width=390, color_scheme=scheme)
    assert page.evaluate(WIDE) == 0
    seen = set()
    for step in range(9):
        page.get_by_label("Step of the episode").first.fill(str(step))
        seen.add(page.locator("canvas").first.evaluate(DRAWN))
    least = {"robot": 5, "cells": 5}.get(
        kind, 9
    )  # it walks four steps to the metre; a board has whole places, and marks
    assert len(seen) >= least
    ground = "getComputedStyle(document.querySelector('canvas')).backgroundColor"
    assert page.evaluate(ground) == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]


def test_an_episode_that_is_not_the_stored_one_says_so(opened, duel, tmp_path):  # noqa: F811
    replays.write(tmp_path / "page.html", "Another", {"best": [duel(same=False, stored=7.25)]})
    page = opened(tmp_path / "page.html")
    page.get_by_role("button", name="End", exact=True).click()
    assert facts(page)[1] == ["won, return 4.00, not the stored episode, which returned 7.25"]


def first_replay(change):
    """Change the bytes of the first replay in a page."""

    def changed(text):
        packed = re.search(r'octet-stream">([^<]+)<', text)[1]
        return text.replace(packed, b64encode(change(b64decode(packed))).decode(), 1)

    return changed


def inner(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)))


HOSTILE = {
    "cut off": lambda content: content[:200],
    "a bit is another": lambda content: content[:300] + bytes([content[300] ^ 4]) + content[301:],
    "no gzip": lambda content: b"<img src=x onerror=document.title='hacked'>",
    "numbers are missing": inner(lambda text: text[:-3]),
    "numbers are too many": inner(lambda text: text + b"\0"),
    "a number without an end": inner(lambda text: text.partition(b"\n")[0] + b"\n" + b"\xff" * 900),
    "more steps than numbers": inner(lambda text: text.replace(b'"steps":8', b'"steps":9999')),
    "steps that are words": inner(lambda text: text.replace(b'"steps":8', b'"steps":"8"')),
    "another return": inner(lambda text: text.replace(b'"return":4.0', b'"return":5.0')),
    "a header that is a list": inner(lambda text: b"[]\n"),
    "a bomb": lambda content: gzip.compress(bytes(2**25)),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_or_hostile_replay_is_refused_and_the_others_play(watch, change):
    page = watch(change=first_replay(change))
    page.wait_for_selector(".refused")
    assert page.get_by_role("alert").inner_text().startswith("This replay cannot be played: ")
    assert page.locator(".replays").first.locator("canvas").count() == 0
    page.get_by_role("button", name="End", exact=True).click()
    assert facts(page, 1)[0] == ["return so far 4.00"] and "hacked" not in page.title()


def test_words_of_a_replay_are_only_ever_text(watch):
    evil = b"<img src=x onerror=alert(1)>"
    page = watch(change=first_replay(inner(lambda text: text.replace(b'"title":"BC"', b'"title":"' + evil + b'"'))))
    assert page.locator("h3").first.inner_text() == evil.decode() and page.locator("img").count() == 0
