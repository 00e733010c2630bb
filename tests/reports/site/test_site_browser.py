"""The leaderboard site in a browser, opened from disk as a reader does."""

import pytest
from browser import WIDE, chromium, needs_browser, opened  # noqa: F401

from offmarl.reports.records import replay
from offmarl.reports.records.reader import Records
from offmarl.reports.site import build as site
from offmarl.reports.site.boards import Suite

pytestmark = needs_browser

# Visible text whose contrast with the ground behind it is below 4.5 (3 for large text), WCAG AA.
PALE = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const words = [...e.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!words.length || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), ink = light(parse(e.closest("svg") ? style.fill : style.color));
    const back = light(ground(e)), ratio = (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) found.push([words[0].textContent.trim(), ratio]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, fill, write_run, write_selection, suite, duel):
    """The site of known numbers: two profiles, two sources, a failure, a note, an interval, a selection.

    The failure takes a seed of MAC-Flow's and with it MAC-Flow's average, which would be the best.
    """
    results = fill(tmp_path_factory.mktemp("store"))
    run = write_run(results, "smac/3m", "good", "bc", 2, 18.0).name
    write_run(results, "smac/3m", "good", "bc", 0, 9.0, profile="smoke", config={"hidden": [64, 64]})
    write_run(results, "smacv2/zerg_5_vs_5", "replay", "bc", 0, 6.0, source="og_marl", engine={"engine": "SMAC"})
    write_run(results, "smac/3m", "poor", "mac_flow", 1, None, reason="out of memory")
    other = write_run(results, "smac/3m", "good", "mac_flow", 2, 18.5).name

    def keep(folder, name, title="BC", seed=2, **facts):
        (results / folder).mkdir(parents=True, exist_ok=True)
        replay.write(results / folder / name, duel(title=title, seed=seed, play="own", **facts))

    keep(f"replays/{run}", "own-8.replay", steps=7, run=run, episode=8)
    keep(f"runs/{run}", "own-7.replay", steps=8, run=run, episode=7)
    keep(f"runs/{other}", "own-7.replay", "MAC-Flow", steps=5, run=other, episode=7)
    keep("replays/smac-3m.good.embedded", "data-3.replay", "data, behaviour 1", None, steps=6, episode=3)
    (results / "replays" / run / "damaged.replay").write_bytes(b"GIF89a")
    write_selection(results)
    place = tmp_path_factory.mktemp("site") / "a folder"
    site.write(Records.read(results), place, {"smac": Suite(suite, paper={("smac/3m", "bc"): {"hidden": [512]}})})
    return place


@pytest.fixture
def visit(opened, folder):  # noqa: F811
    """Open a page of the site."""
    return lambda address="index.html", width=1280, **how: opened(folder / address, width, **how)


def column(table, number):
    return [row.locator("th, td").nth(number).inner_text().split("\n")[0] for row in table.locator("tbody tr").all()]


def test_a_click_on_a_head_sorts_and_the_next_turns_it_round(visit):
    table = visit().locator("table.sortable").first
    head = table.locator("thead th").nth(1)
    assert column(table, 0) == ["Flow BC", "BC", "MAC-Flow"] and head.get_attribute("aria-sort") is None
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending" and column(table, 0) == ["Flow BC", "BC", "MAC-Flow"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and column(table, 0) == ["BC", "Flow BC", "MAC-Flow"]
    table.locator("thead button").first.click()
    assert head.get_attribute("aria-sort") is None and column(table, 0) == ["BC", "Flow BC", "MAC-Flow"]
    table.get_by_role("button", name="decision, ms").click()
    assert column(table, 0) == ["Flow BC", "MAC-Flow", "BC"]


def test_averages_and_cells_without_a_number_stay_last(visit):
    matrix = visit().locator("table.matrix").first
    for _ in range(2):
        matrix.get_by_role("button", name="BC", exact=True).click()
        assert column(matrix, 0)[-1] == "average"
    numbers = [float(text.rstrip("†")) for text in column(matrix, 2)[:-1]]
    assert numbers == sorted(numbers)
    results = visit("methods/bc.html").locator("table.sortable").last  # smoke: one dataset of four
    for _ in range(2):
        results.get_by_role("button", name="ours").click()
        assert column(results, 0)[0] == "3m good"
    results = visit("methods/mac_flow.html").locator("table.sortable").first  # a seed was lost on 3m poor
    for _ in range(2):
        results.get_by_role("button", name="ours").click()
        names = column(results, 0)
        assert "3m poor" in names[-3:] and column(results, 2)[names.index("3m poor")] == "3.0 partial"


def test_filters_hide_what_does_not_fit(visit):
    page = visit()
    shown = page.locator(".board:visible")
    assert shown.count() == 3 and page.locator("#count").inner_text() == "3 of 3 boards"
    page.get_by_label("Profile").select_option("smoke")
    assert shown.count() == 1 and "smoke" in shown.locator("h3.name").inner_text()
    assert page.locator(".jump li:visible").count() == 1
    page.get_by_label("Source").select_option("og_marl")
    assert shown.count() == 0 and page.locator("#count").inner_text() == "0 of 3 boards"
    page.get_by_label("Profile").select_option("")
    assert shown.count() == 1
    page.get_by_label("Source").select_option("")
    page.get_by_label("Family").select_option("smacv2")
    assert set(page.locator(".group:visible h4").all_inner_texts()) == {"SMACv2"}


def test_every_page_opens_and_none_is_wider_than_a_phone(visit, folder):
    page = visit(width=390)
    pages = sorted(folder.rglob("*.html"))
    assert len(pages) > 20
    for path in pages:
        page.goto(path.as_uri())
        assert page.locator("h1").count() == 1 and page.evaluate(WIDE) == 0, path
    page.goto((folder / "index.html").as_uri())
    matrix = page.locator("table.matrix").first
    matrix.evaluate("table => { table.parentElement.scrollLeft = 200 }")
    head = matrix.locator("tbody th").first.bounding_box()
    assert matrix.evaluate("table => table.parentElement.scrollLeft") > 0 and head["x"] == pytest.approx(20, abs=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(visit, scheme):
    for address in ["index.html", "methods/bc.html", "cells/smac.3m.good.bc.smac.smoke.embedded.html"]:
        page = visit(address, color_scheme=scheme)
        assert page.evaluate(PALE) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]


def test_methods_differ_from_the_ground_in_both_schemes(visit):
    """Black on white, and no longer black on dark."""
    swatch = "getComputedStyle(document.querySelector('.swatch.c0')).backgroundColor"
    light, dark = (visit(color_scheme=scheme).evaluate(swatch) for scheme in ("light", "dark"))
    assert light == "rgb(0, 0, 0)" and dark.startswith("oklch(0.58")


def test_the_keyboard_skips_to_the_content_and_sorts(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('thead button')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator("table.sortable th").first.get_attribute("aria-sort") == "ascending"


def test_everything_is_there_without_the_script(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("thead button").count() == 0 and not page.locator("#filters").is_visible()
    assert page.get_by_text("18.5").first.is_visible() and page.locator("svg.chart").first.is_visible()


def test_a_print_has_no_controls_and_all_the_notes(visit):
    page = visit(color_scheme="dark")
    notes = page.get_by_text("is shown for the ranking only").first
    assert not notes.is_visible()
    page.emulate_media(media="print")
    assert not page.locator("#filters").is_visible() and not page.locator("nav").is_visible()
    assert notes.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"  # in dark, too


def test_a_cell_shows_the_replays_that_were_kept_of_it(visit):
    page = visit("cells/smac.3m.good.bc.smac.quick.embedded.html")
    heads = page.locator("section > h3").all_inner_texts()
    assert heads == [f"BC, seed 2, episode {n}: won, return {r}" for n, r in ((8, "3.5"), (7, "4.0"))]
    page.get_by_role("button", name="End", exact=True).last.click()
    assert page.locator(".end").last.inner_text() == "won, return 4.00, the stored episode (return 4.00)"
    assert visit("cells/smac.3m.poor.mac_flow.smac.quick.embedded.html").locator(".replays").count() == 0


def test_a_datasets_page_shows_its_episodes_and_leads_to_the_best_method_beside_cloning(visit):
    page = visit("datasets/smac.3m.good.embedded.html", width=390)
    assert page.locator("section > h3").first.inner_text() == "Data, behaviour 1, episode 3: won, return 3.0"
    page.get_by_role("link", name="Watch MAC-Flow beside BC on 3m good").click()
    assert page.locator("h2").all_inner_texts() == ["Seed 2, episode 7"] and page.evaluate(WIDE) == 0
    page.get_by_role("button", name="End", exact=True).focus()
    page.keyboard.press("End")
    ends = [f"won, return {n}, the stored episode (return {n})" for n in ("2.50", "4.00")]
    assert page.locator(".end").all_inner_texts() == ends
    assert page.locator(".view h3").all_inner_texts() == ["MAC-Flow", "BC"]
