"""What `judge` says of a pool that is known in full."""

from pathlib import Path

import numpy as np
import pytest
from browser import WIDE, chromium, needs_browser, opened  # noqa: F401
from dial import Dial

from offmarl.datasets.measures.measure import measure
from offmarl.reports.records import replay
from offmarl.reports.selection import verdict
from offmarl.reports.selection.pool import Policy, Pool
from offmarl.reports.selection.trust import Judged
from offmarl.reports.site.verdict import write

TRUSTED = {"mpe": Judged("mpe", "fitted_q", 3, 60, 4, (0.8, 0.7, 0.9), (0.1, 0.0, 0.2), 0.4, 0.01)}
VALUES = {"agreement": {"one": 0.9, "other": 0.2}, "fitted_q": {"one": 1.0, "other": 2.0}}


@pytest.fixture(scope="module")
def measures():
    return measure(Dial(episodes=6, length=8).dataset())


def facts(measures, results, family="mpe", played=True, lost=(), held_out=2):
    episodes = ([3.0, 5.0], [1.0]) if played else ([], [])
    titles = {"one": "BC <b>", "other": "MAC-Flow"}
    policies = [
        Policy(run, "bc", title, "paper", 0, np.array(own)) for (run, title), own in zip(titles.items(), episodes)
    ]
    pool = Pool(f"{family}/spread", "expert", "embedded", policies, 0.0, 10.0)
    asked = verdict.Asked("continuous", "quick", 0.9, 18, held_out, results, " --task two.py", played)
    return verdict.facts(pool, VALUES, TRUSTED, measures, asked, lost)


def test_the_trusted_selector_of_the_family_chooses_and_play_chooses_nothing(measures):
    found = facts(measures, Path("/r"), lost=["smac-3m.bc.s1"])
    assert found["chosen"].run_id == "other" and found["file"] == "/r/runs/other/checkpoint.pt"
    text = verdict.markdown(found)
    assert "**MAC-Flow**, seed 0." in text and "rank correlation with played returns was 0.80" in text
    assert "`offmarl play other --results /r --task two.py`" in text and "offmarl latency --suite continuous" in text
    assert text.index("BC &lt;b&gt;") < text.index("MAC-Flow (chosen)") and "4 ± 1 (2 episodes)" in text
    assert "Not trained to the end: smac-3m.bc.s1." in text
    assert "trained on 18 of 20 episodes. The other 2, drawn once for all, are what agreement" in text
    assert f"The data's episodes return {measures['returns']['mean']:.4g} on average." in text


def test_it_says_how_many_episodes_were_held_out_and_offers_to_watch_what_has_pictures(measures, tmp_path):
    text = verdict.markdown(facts(measures, tmp_path, held_out=0))
    assert "trained on all 18 episodes: too few to hold any out; agreement is measured on what" in text
    assert "offmarl watch" not in text and "training itself held out" not in text
    (tmp_path / "runs" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "other" / "own-8.replay").write_bytes(b"")
    text = verdict.markdown(facts(measures, tmp_path))
    assert f"`offmarl watch other --results {tmp_path} --task two.py`" in text
    assert "training itself held out up to a tenth" in verdict.markdown(facts(measures, tmp_path, played=False))


def test_a_selector_that_knows_no_number_chooses_nobody():
    policies = [Policy(name, "bc", "BC", "paper", 0, np.array([])) for name in "abc"]
    pool = Pool("mpe/spread", "expert", "embedded", policies, 0.0, 10.0)
    chosen = verdict.choose(pool, {"fitted_q": {"a": np.nan, "b": 1.0, "c": 2.0}}, TRUSTED["mpe"])
    assert chosen and chosen.run_id == "c"
    assert verdict.choose(pool, {"fitted_q": {"a": np.nan, "b": None}}, TRUSTED["mpe"]) is None


def test_without_trust_it_cannot_tell_and_names_what_would_help(measures):
    text = verdict.markdown(facts(measures, Path("/r"), family="lights"))
    assert "**Cannot tell.**" in text and "No selector can be trusted on lights at the profile quick: " in text
    assert "Trusted elsewhere, which says little here: mpe: fitted Q evaluation." in text and "(chosen)" not in text
    assert "offmarl select --suite continuous --profile quick --data-fraction 0.9 --train --offline " in text
    assert " --offline --source embedded --results / --task two.py" in text
    assert "offmarl play RUN_ID --episodes 10 --results /r --task two.py" in text


def test_where_nothing_can_be_played_it_asks_for_a_simulator_or_a_few_real_episodes(measures):
    text = verdict.markdown(facts(measures, Path("/r"), family="lights", played=False))
    assert "never played" in text and "A simulator of the task" in text and "offmarl play" not in text
    assert 'load_policy(RUN_ID, "/r")' in text


@needs_browser
@pytest.mark.parametrize("family", ["mpe", "lights"])
def test_the_page_is_one_file_with_the_replays_that_the_policies_kept(tmp_path, measures, duel, opened, family):  # noqa: F811
    for run in ("one", "other"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        kept = duel(title="MAC-Flow", seed=0, play="own", steps=7, run=run, episode=8)
        replay.write(tmp_path / "runs" / run / "own-8.replay", kept)
    write(tmp_path / "page.html", facts(measures, tmp_path, family), tmp_path)
    page = opened(tmp_path / "page.html", width=380, color_scheme="dark")
    assert page.evaluate(WIDE) == 0
    assert page.locator("canvas, .replays svg").count() >= (1 if family == "mpe" else 2)
    assert page.locator("h1").inner_text() == f"{family}/spread:expert (embedded): which policy to take"
    assert page.get_by_text("Cannot tell").count() == (family == "lights")
    assert "BC <b>" in page.locator("table").first.inner_text()
