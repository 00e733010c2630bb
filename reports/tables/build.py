"""Builds the table of a suite from the records of a store."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from offmarl.reports.published import numbers as published
from offmarl.reports.records.reader import Records, flat
from offmarl.reports.records.schema import FINISHED, OWN, TRAINED, Record, by_play
from offmarl.reports.tables import notes
from offmarl.reports.tables.stats import estimate, standings
from offmarl.reports.tables.table import AVERAGE, DERIVED, SCORE, UNFINISHED, Row, Run, Table, by_dataset, listed

Cells = dict[tuple[str, str, str, str], list[Run]]  # the runs of a play, task, quality and algorithm, one per seed


def build(
    records: Records,
    suite: dict[str, Any],
    name: str,
    profile: str,
    source: str,
    unavailable: dict[str, str],
    elsewhere: Mapping[str, Collection[str]] = {},
) -> Table:
    """The table of a suite (its parsed YAML) at one profile and source.

    Methods are the suite's, then any other that ran on its datasets, but those of other suites only if they ran on all
    of them, and those of its boards (`on_boards`) never. `elsewhere` has the methods of all suites, each with its
    variants that only other suites train: these are shown where there is nothing else. `unavailable` gives the reason
    for each method, and each dataset (task:quality), that does not exist. A group ends in a row of averages (`AVERAGE
    <group>`) for the methods with a number on all its datasets. Tasks in the suite's `normalised` have scores, which
    `unit` says. Every group is there once for each play of the suite, and of the runs; the first has the standing.
    """
    normalised, paper = suite.get("normalised", ()), suite.get("published", "")
    selection = records.select(profile, source, normalised)
    usual, suite = datasets_of(suite), with_derived(suite, selection.records)
    plays, played = _played(selection.records, suite)
    runs, variants = _one_variant(_without_guests(played, suite, usual, elsewhere), elsewhere)
    cells = _by_cell(runs)
    titles = {run["algorithm"]: run["title"] or run["algorithm"] for run in runs}
    methods = suite["algorithms"] | {key: titles[key] for key in sorted(titles.keys() - suite["algorithms"])}
    wanted = max(map(len, cells.values()), default=0)
    rows: list[Row] = []
    for (group, tasks), play in product(suite["groups"].items(), plays):
        place = {"group": group, "play": play, "profile": profile, "source": source}
        members = [
            Row(
                **place | {"task": task, "quality": quality},
                unit=SCORE if task in normalised else "return",
                algorithm=algorithm,
                title=title,
                **_numbers(cells[play, task, quality, algorithm], wanted, reason),
            )
            for task, qualities in tasks.items()
            for quality in qualities
            for algorithm, title in methods.items()
            for reason in [unavailable.get(algorithm) or unavailable.get(f"{task}:{quality}")]
        ]
        first_play = play == plays[0]
        _add_published(members, runs, published.cells(paper) if first_play else {})
        printed = published.printed_averages(paper) if first_play else {}
        rows += [*members, *(_average(members, algorithm, cells, printed) for algorithm in methods)]
    first = [row for row in rows if row.play == plays[0]]
    for competitors in by_dataset(first):
        _mark_standings([row for row in competitors if row.counts])
    mixed = [*variants, *notes.mixed(runs), *notes.lost(first)]
    return Table(
        title=suite["title"] + (notes.rerun_on(runs) if paper else ""),
        rows=rows,
        notes=notes.below(rows, runs, [*selection.notes, *mixed, *notes.on_boards(played, suite)], suite, name),
        mixed=mixed,
        column_notes=published.findings(paper, list(methods.values())),
        runs=_shown(rows, cells),
        plays=plays,
    )


def _played(records: list[Record], suite: dict) -> tuple[list[str], list[Run]]:
    """The plays of a suite and of the runs of its datasets, and these in each; a finished one where it was played."""
    datasets = datasets_of(suite)
    records = [r for r in records if (r["cell"]["task"], r["cell"]["quality"]) in datasets]
    asked = (suite.get("protocol") or {}).get("plays", [OWN])
    plays = list(dict.fromkeys([*asked, *(play for record in records for play in by_play(record))]))
    return plays, [flat(r, play) for play in plays for r in records if r["status"] != "done" or play in by_play(r)]


def _by_cell(runs: list[Run]) -> Cells:
    cells: Cells = defaultdict(list)
    for run in runs:
        cells[run["play"], run["task"], run["quality"], run["algorithm"]].append(run)
    return cells


def datasets_of(suite: dict) -> set[tuple[str, str]]:
    """The datasets of a suite: task and quality."""
    return {(task, q) for tasks in suite["groups"].values() for task, qualities in tasks.items() for q in qualities}


def with_derived(suite: dict[str, Any], records: Iterable[Record]) -> dict[str, Any]:
    """The suite with a group of the datasets that were derived from its tasks' and that runs name."""
    known, tasks = datasets_of(suite), {task for own in suite["groups"].values() for task in own}
    found: dict[str, list[str]] = {}
    for record in records:
        task, quality = record["cell"]["task"], record["cell"]["quality"]
        if task in tasks and (task, quality) not in known and (record.get("dataset") or {}).get("made_from"):
            found.setdefault(task, []).append(quality)
    groups = {task: sorted(set(found[task])) for task in sorted(found)}
    return suite | {"groups": suite["groups"] | {DERIVED: groups}} if groups else suite


def _without_guests(
    runs: list[Run], suite: dict, datasets: set[tuple[str, str]], elsewhere: Collection[str]
) -> list[Run]:
    """The runs without those of the suite's boards, and of other suites' methods that share only some datasets."""
    seen: dict[str, set] = defaultdict(set)
    for run in runs:
        seen[run["algorithm"]].add((run["task"], run["quality"]))
    guests = {m for m in elsewhere if m not in suite["algorithms"] and not seen[m] >= datasets} | {
        *suite.get("on_boards", ())
    }
    return [run for run in runs if run["algorithm"] not in guests]


def _one_variant(runs: list[Run], elsewhere: Mapping[str, Collection[str]]) -> tuple[list[Run], list[str]]:
    """Per algorithm the variant with most finished runs: a column must mean the same in every row.

    A variant that only other suites train, by their settings and protocol, is shown where there is nothing else; a note
    says so.
    """
    finished: dict[str, Counter] = defaultdict(Counter)
    for run in runs:
        finished[run["algorithm"]][run["variant"]] += run["status"] in FINISHED
    for algorithm, count in finished.items():
        own = Counter({variant: n for variant, n in count.items() if variant not in elsewhere.get(algorithm, ())})
        finished[algorithm] = own or count
    shown = {algorithm: count.most_common(1)[0][0] for algorithm, count in finished.items()}
    others = [
        f"{algorithm}: variant {shown[algorithm]} is shown, as another suite trains it; this suite's has not run"
        for algorithm, count in finished.items()
        if shown[algorithm] in elsewhere.get(algorithm, ()) and count[shown[algorithm]]
    ]
    others += [
        f"{algorithm}: variant {shown[algorithm]} is shown; the store also has "
        + ", ".join(variant for variant in count if variant != shown[algorithm])
        for algorithm, count in finished.items()
        if len(count) > 1
    ]
    return [run for run in runs if run["variant"] == shown[run["algorithm"]]], others


def _add_published(rows: list[Row], runs: list[Run], paper: Mapping[published.Cell, tuple[float, float, str]]) -> None:
    """Adds to every row the mean returns of its data and of random play, what derived data are made from, and the
    published number with its origin.
    """
    done = {(run["task"], run["quality"]): run for run in runs if run["status"] == "done"}
    for row in rows:
        run = done.get((row.task, row.quality), {})
        row.dataset_mean, row.random_mean = run.get("dataset_mean", np.nan), run.get("random_mean", np.nan)
        row.made_from = run.get("made_from", "")
        numbers = paper.get((row.task, row.quality, row.title), (np.nan, np.nan, ""))
        row.published_mean, row.published_spread, row.published_origin = numbers


def _numbers(runs: list[Run], wanted: int, unavailable: str | None) -> dict[str, Any]:
    """Number, status and reason of a cell from its runs; `wanted` is how many a complete one has."""
    done = [run for run in runs if run["status"] == "done"]
    unfinished = [run for run in runs if run["status"] in UNFINISHED]
    reasons = "; ".join(dict.fromkeys(run["reason"] or "no reason recorded" for run in unfinished))
    trained = [run for run in runs if run["status"] == TRAINED]
    if not done and trained:
        facts = {key: trained[0][key] for key in ("variant", "config_hash", "engine", "reduced")}
        facts |= {"agreement": float(np.mean([run["agreement"] for run in trained])), "n_seeds": len(trained)}
        return {**facts, "status": TRAINED, "reason": "there is no environment to play in", "n_lost": len(unfinished)}
    if not done and unfinished:
        return {"status": unfinished[0]["status"], "reason": reasons, "n_lost": len(unfinished)}
    if not done and unavailable:
        return {"status": "not available", "reason": unavailable}
    if not done:
        return {"status": "pending", "reason": "not run yet"}
    reason = f"{len(done)} of {wanted} seeds"
    if unfinished:
        reason += f"; the others {unfinished[0]['status']}: {reasons}"
    return {
        **estimate([_episodes(runs)]),
        "n_lost": len(unfinished),
        **{key: done[0][key] for key in ("variant", "config_hash")},
        **{key: float(np.mean([run[key] for run in done])) for key in ("win_rate", "latency_ms")},
        "engine": listed(run["engine"] for run in done) or "unknown",
        **{key: listed(run[key] for run in runs) for key in ("reduced", "acting", "timeouts")},
        "status": "partial" if len(done) < wanted else "done",
        "reason": reason if len(done) < wanted else "",
    }


def _average(members: Sequence[Row], algorithm: str, cells: Cells, printed: Mapping[tuple, tuple[float, ...]]) -> Row:
    """The mean over a group's cells of one method; no number unless every cell has one, of all its seeds."""
    own = [row for row in members if row.algorithm == algorithm]
    group, title = own[0].group, own[0].title
    facts: dict[str, Any] = {
        key: float(np.mean([getattr(cell, key) for cell in own]))
        for key in ("win_rate", "latency_ms", "dataset_mean", "random_mean", "published_mean")
    }
    numbers = [_episodes(cells[cell.play, cell.task, cell.quality, cell.algorithm]) for cell in own if cell.has_mean]
    statuses, lost = {cell.status for cell in own}, [cell.label for cell in own if cell.n_lost]
    if statuses in ({"not available"}, {TRAINED}):
        status, reason = own[0].status, own[0].reason
    elif lost:
        status, reason = "partial", f"no average: a seed was lost on {', '.join(lost)}"
    elif len(numbers) < len(own):
        status, reason = "pending", f"{len(numbers)} of {len(own)} datasets"
    else:
        words = ("variant", "engine", "reduced", "acting", "timeouts")
        facts |= estimate(numbers) | {key: listed(getattr(cell, key) for cell in own) for key in words}
        status, reason = ("partial", "fewer seeds on some datasets") if "partial" in statuses else ("done", "")
    return Row(
        **{key: getattr(own[0], key) for key in ("group", "play", "algorithm", "title", "profile", "source")},
        task=AVERAGE + group,
        quality="",
        unit=listed(row.unit for row in members),
        published_printed=printed.get((group, title), (np.nan,))[0],
        status=status,
        reason=reason,
        **facts,
    )


def _mark_standings(competitors: list[Row]) -> None:
    """Marks the best and second mean of a dataset's rows, and the intervals that overlap the best's."""
    if len(competitors) < 2:
        return
    for row, standing in zip(competitors, standings([row.mean for row in competitors])):
        row.standing = standing
    best = [row.ci_low for row in competitors if row.standing == "best"]
    reach = min((low for low in best if not np.isnan(low)), default=np.nan)  # without an interval nothing is tied
    for row in competitors:
        row.tied = row.standing != "best" and bool(row.ci_high >= reach)


def _shown(rows: Iterable[Row], cells: Cells) -> list[Run]:
    """The finished runs behind the rows, in their order, with what they share with them."""
    return [
        run | {key: getattr(row, key) for key in ("title", "group", "unit", "dataset_mean", "n_lost")}
        for row in rows
        for run in cells.get((row.play, row.task, row.quality, row.algorithm), [])
        if run["status"] == "done"
    ]


def _episodes(runs: Iterable[Run]) -> dict[int, list[float]]:
    """The returns of the last evaluation by seed."""
    return {run["seed"]: run["episodes"] for run in runs if run["status"] == "done"}
