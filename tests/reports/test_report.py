"""Pages, files and figures from a store of known numbers."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from offmarl.reports import report
from offmarl.reports.figures import curves as figures
from offmarl.reports.records.reader import Records
from offmarl.reports.tables import writers
from offmarl.reports.tables.table import Row


def test_markdown_escapes_what_comes_from_the_store(store, write_run, build):
    for seed in (0, 1):
        write_run(store, "smac/3m", "good", "bc", seed, None, reason="<script>alert(1)</script> & more")
    text = writers.markdown(build(store))
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text


def test_latex_is_balanced_and_escaped(store, write_run, build):
    for seed in (0, 1):
        write_run(store, "smac/3m", "good", "bc", seed, None, reason="50% of {x_1} & \\y")
    text = writers.latex(build(store))
    assert r"50\% of \{x\_1\} \& \textbackslash{}y" in text and r"zerg\_5\_vs\_5 replay" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}") and text.isascii()
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 12 and {len(re.findall(r"(?<!\\)&", line)) for line in body} == {4}
    assert r"\textbf{19.5}" in text and r"\textcolor{gray}{\scriptsize paper 19.8 $\pm$ 0.2}" in text


def test_the_terminal_gets_plain_text(store, build):
    text = writers.plain(build(store))
    assert "19.5*(20.0)" in text and "16.0 (16.0)" in text
    assert not re.search(r"<\w", text) and max(map(len, text.splitlines())) <= 120


def test_sources_have_tables_and_folders_of_their_own(store, suite):
    out = report.write(Records.read(store), "smac", suite, "quick", "og_marl", {})
    assert {path.parent.name for path in out["paths"]} == {"smac-og_marl"}
    table = pd.read_csv(store / "reports" / "smac-og_marl" / "table.csv")
    assert set(table.source) == {"og_marl"} and table["mean"].isna().all()  # the store has embedded runs only


def test_report_writes_every_file_once_and_whole(store, suite):
    out = report.write(Records.read(store), "smac", suite, "quick", "embedded", {})
    names = ["table.md", "table.csv", "table.tex", "aggregates.md", "aggregates.csv"]
    names += [f"{stem}.{kind}" for stem in ("curves", "speed_return", "aggregates") for kind in ("png", "pdf")]
    assert [path.name for path in out["paths"]] == names and out["notes"] == []
    assert sorted(path.name for path in (store / "reports" / "smac").iterdir()) == sorted(names)
    assert out["text"].startswith("Table 1")
    for name in ("curves.png", "speed_return.png", "aggregates.png"):
        image = imread(store / "reports" / "smac" / name)
        assert image.shape[0] > 300 and image.shape[1] > 600 and image[..., :3].std() > 0.05
    before = {path.name: path.read_bytes() for path in out["paths"]}
    report.write(Records.read(store), "smac", suite, "quick", "embedded", {})
    assert {path.name: path.read_bytes() for path in out["paths"]} == before


def test_csv_has_the_long_table(store, suite):
    report.write(Records.read(store), "smac", suite, "quick", "embedded", {})
    table = pd.read_csv(store / "reports" / "smac" / "table.csv")
    assert list(table.columns) == [field.name for field in fields(Row)] and len(table) == (4 + 2) * 3
    wanted = "task quality algorithm title variant profile source engine n_seeds mean two_std ci_low ci_high ci_over"
    wanted += " win_rate dataset_mean published_mean published_spread status reason"
    assert set(wanted.split()) <= set(table.columns)


def test_a_failed_write_leaves_the_old_file(store, monkeypatch, suite):
    report.write(Records.read(store), "smac", suite, "quick", "embedded", {})
    folder = store / "reports" / "smac"
    before = (folder / "curves.png").read_bytes()

    def half(self, place, **_):
        Path(place).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        report.write(Records.read(store), "smac", suite, "quick", "embedded", {})
    assert (folder / "curves.png").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_an_empty_store_gives_a_pending_table_and_no_figures(tmp_path, suite):
    stale = tmp_path / "reports" / "smac" / "curves.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    out = report.write(Records.read(tmp_path), "smac", suite, "quick", "embedded", {})
    assert {path.suffix for path in out["paths"]} == {".md", ".csv", ".tex"} and not stale.exists()
    told = [f"{name}: not drawn, no finished runs to show" for name in ("curves", "speed_return")]
    assert out["notes"] == [*told, "aggregates: not drawn, no method has every dataset of a group"]
    assert set(pd.read_csv(stale.with_name("table.csv")).status) == {"pending"}
    assert "no finished run yet (`offmarl run --suite smac`)" in out["text"]


def test_no_results_directory_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match=r"^no results directory at .*absent; `offmarl run` makes it$"):
        Records.read(tmp_path / "absent")


def test_a_method_keeps_its_colour_whichever_methods_ran(tmp_path, fill, build, datasets):
    fill(tmp_path / "all")
    fill(tmp_path / "few", [(*dataset, "bc") for dataset in datasets])
    drawn = {}
    for name in ("all", "few"):
        table = build(tmp_path / name)
        figure = figures.learning_curves(table)
        lines = [line for line in figure.axes[0].get_lines() if line.get_label() in figures.colours(table)]
        drawn[name] = {line.get_label(): to_hex(line.get_color()).upper() for line in lines}
        assert figure.axes[0].get_xlim()[0] == 0
        assert len(figure.axes) == 6 and [axis.get_title() for axis in figure.axes][:2] == ["3m good", "3m medium"]
    assert set(drawn["all"]) == {"BC", "Flow BC", "MAC-Flow"} and set(drawn["few"]) == {"Flow BC", "MAC-Flow"}
    assert drawn["few"].items() <= drawn["all"].items()
    assert drawn["all"] == figures.colours(build(tmp_path / "all"))


def test_speed_and_return_are_over_the_datasets_all_methods_have(tmp_path, fill, build):
    fill(tmp_path, [("smac/3m", "poor", "bc")])
    figure = figures.speed_return(build(tmp_path))
    axis = figure.axes[0]
    assert (axis.get_title(), axis.get_ylabel(), axis.get_xscale()) == ("SMACv1 (2 datasets)", "mean return", "log")
    drawn = [line for line in axis.get_lines() if line.get_marker() in list("osD")]
    points = {round(line.get_xdata()[0], 6): line.get_ydata()[0] for line in drawn}
    assert points == pytest.approx({0.2: (16 + 10) / 2, 1.5: (19.5 + 9) / 2, 0.25: (18.5 + 12) / 2})
    assert (
        "quick profile, source embedded, SMAX" in figure.get_supxlabel()
        and "the runs' own networks, on a processor" in figure.get_supxlabel()
    )


def test_figures_draw_no_interval_of_fewer_than_three_seeds_and_say_so(store, write_run, build):
    def drawn():
        table = build(store)
        axis = figures.speed_return(table).axes[0]
        bars = [line for bar in axis.containers for part in bar.lines[2] for line in part.get_segments()]
        curves = figures.learning_curves(table)
        bands = [band.get_paths() for band in curves.axes[0].collections]
        told = {figure.get_supxlabel().count("no interval") for figure in (axis.figure, curves)}
        return sum(len(bar) > 1 for bar in bars), sum(map(len, bands)), told

    assert drawn() == (0, 0, {1})
    for quality in ("good", "medium", "poor"):
        write_run(store, "smac/3m", quality, "bc", 2, 12.0)
    assert drawn() == (1, 1, {0})


def test_names_of_crowded_points_do_not_overlap(tmp_path, write_run, build, suite):
    suite = suite | {"algorithms": {f"m{k}": f"A long name {k}" for k in range(6)}}
    for k in range(6):
        write_run(tmp_path, "smac/3m", "good", f"m{k}", 0, 10 + 0.1 * k)
    figure = figures.speed_return(build(tmp_path, suite))
    renderer = figure.canvas.get_renderer()
    boxes = [name.get_window_extent(renderer) for name in figure.axes[0].texts]
    assert len(boxes) == 6
    assert not any(box.count_overlaps(boxes[:place]) for place, box in enumerate(boxes))


def test_reports_need_neither_torch_nor_ray_nor_jax():
    code = "import sys, offmarl.reports.report; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "ray", "jax", "tensorflow"} & set(loaded)
    assert {name.split(".")[1] for name in loaded if name.startswith("offmarl.")} == {"reports"}
