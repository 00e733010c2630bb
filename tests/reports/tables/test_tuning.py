"""What tuning brought each method: the table, the page of the site, and the note of who was not tuned."""

from offmarl.reports.records.reader import Records
from offmarl.reports.site import build as site
from offmarl.reports.site.boards import Suite
from offmarl.reports.tables import build as tables
from offmarl.reports.tables import tuning


def test_the_summary_has_the_papers_score_the_best_one_and_the_gain(tuned):
    gained, kept, lost = tuning.summary(tuned).rows
    assert gained[2:7] == ["Gained", "0.500", "0.600", "+0.100", "alpha 1.0"]
    assert kept[2:7] == ["Kept", "0.500", "0.500", "+0.000", "the paper's"]
    assert lost[2:6] == ["<Lost>", "–", "0.450", "–"] and "stale: the code of method" in lost[7]
    assert gained[7] == "quick, 1,000 updates, 2 seeds, 2026-01-02"


def test_every_trial_has_its_score_on_each_dataset(tuned):
    rows = tuning.trials(tuned).rows
    assert len(rows) == 6
    assert rows[0][2:] == ["Gained", "alpha 1.0", "0.600", "smac/3m:poor 0.400, smac/5m_vs_6m:good 0.800"]
    assert rows[-1][4:] == ["–", "diverged"]


def test_the_text_is_a_table_and_what_its_numbers_are(tuned):
    text = tuning.text(tuned)
    assert "| Gained |" in text and "&lt;Lost&gt;" in text and tuning.RULE in text
    assert "Nothing has been tuned" in tuning.text([])


def test_the_site_has_a_page_of_trials(tuned, store, suite, tmp_path):
    folder = tmp_path / "site"
    out = site.write(Records.read(store), folder, {"smac": Suite(suite)}, tuned=tuned)
    page = (folder / "tuning.html").read_text()
    assert "+0.100" in page and "smac/3m:poor 0.400" in page and "&lt;Lost&gt;" in page
    assert 'href="tuning.html"' in (folder / "index.html").read_text()
    assert out["pages"] == len(list(folder.rglob("*.html")))
    site.write(Records.read(store), folder, {"smac": Suite(suite)})
    assert not (folder / "tuning.html").exists() and "tuning.html" not in (folder / "index.html").read_text()


def test_a_table_of_tuned_runs_names_who_has_the_papers_settings(tmp_path, write_run, suite):
    def note(variant):
        results = tmp_path / variant
        for algorithm in ("bc", "flow_bc", "mac_flow"):
            write_run(results, "smac/3m", "good", algorithm, 0, 5.0, variant=variant)
        told = suite | {"untuned": {"mac_flow": ["smac"], "bc": ["mpe"], "flow_bc": ["smac"]}}
        notes = tables.build(Records.read(results), told, "smac", "quick", "embedded", {}).notes
        return [text for text in notes if text.startswith("Not tuned")]

    assert note("quick") == []
    (text,) = note("released+tuned")
    assert text.endswith(": Flow BC, MAC-Flow (smac).")
