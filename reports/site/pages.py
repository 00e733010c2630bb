"""What every kind of page of the site shows, as plain values for its template."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from offmarl.reports import studies
from offmarl.reports.records.reader import flat, scored
from offmarl.reports.records.schema import Record, by_play
from offmarl.reports.site import charts
from offmarl.reports.site.boards import Board, BoardRow, slug
from offmarl.reports.site.facts import as_json, as_list, counts, listed, part, together
from offmarl.reports.site.replays import Replays, duels, of_page, of_runs
from offmarl.reports.tables import aggregates
from offmarl.reports.tables import predictions as tables_predictions
from offmarl.reports.tables import tuning as tuning_table
from offmarl.reports.tables.stats import on_common_datasets
from offmarl.reports.tables.table import NAMES, by_dataset, span

ENGINES = {  # what the labels mean that runs carry
    "SMAX": "JaxMARL’s battle simulator with StarCraft II’s unit values. It stands in for the game, which is why no "
    "result here is called SMAC: compare methods with each other, and only their order with a paper’s.",
    "MuJoCo": "The robots’ physics itself, in a newer release than the papers’; releases move trajectories.",
    "OMAR's particle worlds, rewritten": "OMAR’s particle worlds in NumPy, with a scripted prey unless OMAR’s is used.",
    "SMAC": "Real StarCraft II through SMAC.",
    "SMACv2": "Real StarCraft II through SMACv2.",
    "OMIGA's SMAC": "Real StarCraft II through OMIGA’s version of SMAC.",
}
PROFILES = {
    "smoke": "A few updates on two tasks: it shows that the machinery works, and nothing about methods.",
    "quick": "Small networks and a short training on every dataset: a first ranking of methods, not one to cite.",
    "standard": "Small networks, five seeds, methods tuned alike, training until most curves are flat: a comparison.",
    "paper": "The papers’ networks, updates and seeds.",
}
CARD = {  # a dataset's facts, and what they are called
    "return_mean": "mean return",
    "return_std": "standard deviation",
    "episodes": "episodes",
    "transitions": "transitions",
    "length_mean": "mean length",
    "published_mean": "mean return of the public data",
    "published_std": "its standard deviation",
    "epsilon": "random actions, share",
    "behaviours": "behaviours",
    "made_from": "made from",
    "sha256": "SHA-256",
}
CLONING = "bc"  # what every other method is watched beside
BADGES = {"holds": "good", "does not hold": "bad"}  # of verdicts
PLACES = [("machine", "machine"), ("simulator", "engine"), ("code", "code"), ("decision", "latency"), ("time", "time")]


def engines(runs: Iterable[Record]) -> dict[str, str]:
    """Every simulator's label to what it means, of these runs."""
    labels = dict.fromkeys(str(part(run, "engine").get("engine", "")) for run in runs)
    return {label: ENGINES.get(label, "") for label in labels if label}


def index(boards: Sequence[Board]) -> dict[str, Any]:
    """The leaderboards, and everything that has a page."""
    runs = [run for board in boards for own in board.runs.values() for run in own]
    finished = max((str(run.get("finished") or "") for run in runs), default="")[:10]
    rows = [row for board in boards for row in board.rows]
    datasets = [row for row in rows if not row.is_average]
    done = {run["run_id"]: run["cell"] for run in runs if run["status"] == "done"}.values()
    return {
        "boards": [leaderboard(board) for board in boards],
        "runs": len(done),
        "ran": span([len({cell["algorithm"] for cell in done})], "method"),
        "on": span([len({tuple(cell[key] for key in ("task", "quality", "source")) for cell in done})], "dataset"),
        "finished": finished,
        "engines": engines(runs),
        "profiles": {name: PROFILES.get(name, "") for name in dict.fromkeys(board.profile for board in boards)},
        "sources": list(dict.fromkeys(board.source for board in boards)),
        "families": list(dict.fromkeys(row.family for row in datasets)),
        "methods": {row.method_page: row.title for row in rows},
        "datasets": {row.dataset_page: f"{row.task.split('/')[-1]} {row.quality}, {row.source}" for row in datasets},
    }


def tuning(tuned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What tuning brought each method, and every trial."""
    tables = {"Chosen": tuning_table.summary(tuned), "Every trial": tuning_table.trials(tuned)}
    return {"rule": tuning_table.RULE, "tables": tables}


def leaderboard(board: Board) -> dict[str, Any]:
    """A board by groups: averages from best to last, aggregates, speed against return, and every dataset by methods."""
    groups, titles = [_group(board, name) for name in board.table.groups], {row.algorithm: row for row in board.rows}
    return {"board": board, "titles": titles, "groups": groups}


def _group(board: Board, name: str) -> dict[str, Any]:
    pooled, blocks = aggregates.tabulated(board.pooled), [aggregates.block_name(name, p) for p in board.table.plays]
    own = [row for row in board.rows if row.group == name]
    (*datasets, average), *others = (by_dataset(row for row in own if row.play == play) for play in board.table.plays)
    has_average = any(row.rank for row in average)
    played = [cells for block in others for cells in block if any(row.rank for row in cells)]
    idle = [cells for cells in datasets if not any(row.n_seeds or row.page for row in cells)]
    timed = [run for run in board.table.main_runs if run["group"] == name and run["latency_ms"] > 0]
    found, common = on_common_datasets(timed)
    points = [{"title": title, **point} for title, point in found.items()]
    return {
        "name": name,
        "unit": average[0].unit,
        "families": " ".join(dict.fromkeys(cells[0].family for cells in datasets)),
        "started": any(row.n_seeds or row.page for row in own),
        "averages": _ranked(average) if has_average else [],
        "datasets": len(datasets),
        "rows": [cells for cells in datasets if cells not in idle] + [average] * has_average + played,
        "idle": idle,
        "points": points,
        "common": span([common], "dataset"),
        "scatter": charts.scatter(points) if points else None,
        "devices": devices(run for row in own for run in board.runs.get(row.key, [])),
        "pooled": {block: pooled[block] for block in blocks if block in pooled},
    }


def _ranked(rows: Iterable[BoardRow]) -> list[BoardRow]:
    """From best to last; those without a number by title."""
    return sorted(rows, key=lambda row: (row.rank or np.inf, row.title))


def method(boards: Sequence[Board], algorithm: str) -> dict[str, Any]:
    """A method: facts, settings, and a result on every dataset of the boards that show it."""
    found = [(board, [row for row in board.rows if row.algorithm == algorithm]) for board in boards]
    found = [(board, rows) for board, rows in found if rows]
    facts, results = [], []
    for board, rows in found:
        own = [run for key, some in board.runs.items() if key[2] == algorithm for run in some]
        facts += [part(run, "algorithm") for run in own]
        notes = [text for titles, text in board.table.column_notes if rows[0].title in titles]
        result = {"board": board, "rows": rows, "notes": notes, "variants": _variants(own)}
        results.append(result | {"settings": settings(own, board.suite.paper)})
    return {
        "title": found[0][1][0].title,
        "algorithm": algorithm,
        "facts": {
            "paper": listed(fact.get("paper") for fact in facts),
            "execution": listed(fact.get("execution") for fact in facts),
            "actions": listed(str(action) for fact in facts for action in as_list(fact.get("actions"))),
            "draws when it plays": listed(fact.get("acting_rule") for fact in facts),
            "network calls in a decision": counts(fact.get("nfe") for fact in facts),
            "parameters": counts(fact.get("parameters") for fact in facts),
        },
        "sources": list(dict.fromkeys(str(fact["source_code"]) for fact in facts if fact.get("source_code"))),
        "results": results,
    }


def dataset(
    boards: Sequence[Board], page: str, replays: Replays, shown: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """A dataset: its data's facts, the ranking of methods on every board, and the returns that each method got.

    `shown` has the cards of data by SHA-256, as `site.cards` reads them.
    """
    found = [(board, [row for row in board.rows if row.dataset_page == page]) for board in boards]
    found = [(board, rows) for board, rows in found if rows]
    board, (first, *_) = found[0]
    place = first.task, first.quality
    runs = [run for b, _ in found for key, own in b.runs.items() if key[:2] == place for run in own]
    cards = [part(run, "dataset") for run in runs if part(run, "dataset")]
    sums = [str(card.get("sha256")) for card in cards]
    return {
        "title": " ".join(place),
        "source": board.source,
        "card": next((shown[sum_] for sum_ in sums if sum_ in shown), None),
        "command": f"offmarl data card {':'.join(place)}" + f" --source {board.source}" * (board.source != "embedded"),
        "facts": {name: listed(card.get(key) for card in cards) for key, name in CARD.items()}
        | {"simulator": listed(row.engine for _, rows in found for row in rows if row.n_seeds)},
        "note": listed(card.get("note") for card in cards),
        "engines": engines(runs),
        "replays": of_page(replays.get(":".join([*place, board.source]), [])),
        "rankings": [
            _ranking(board, cells) | {"duel": duel(board, cells, replays)}
            for board, cells in _widest([(board, cells) for board, rows in found for cells in by_dataset(rows)])
        ],
    }


def _widest(rankings: list[tuple[Board, list[BoardRow]]]) -> list[tuple[Board, list[BoardRow]]]:
    """Without rankings of a dataset all of whose runs stand in another one, in the same play, with more methods."""
    runs = [
        {(row.play, run["run_id"]) for row in rows for run in board.runs.get(row.key, ())} for board, rows in rankings
    ]
    sizes = [len(rows) for _, rows in rankings]
    return [
        ranking
        for ranking, own, size in zip(rankings, runs, sizes)
        if not any(own <= others and size < more for others, more in zip(runs, sizes))
    ]


def predictions(boards: Sequence[Board], shown: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What measures of data tell of gains, by profile and source; nothing where there are no cards."""
    titles = {method: title for board in boards for method, title in board.table.titles.items()}
    places = []
    for profile, source in dict.fromkeys((board.profile, board.source) for board in boards):
        here = [board for board in boards if (board.profile, board.source) == (profile, source)]
        runs = [
            (place, run) for b in here for (*place, _), own in b.runs.items() for run in own if part(run, "dataset")
        ]
        sums = {(task, quality): str(part(run, "dataset").get("sha256")) for (task, quality), run in runs}
        measures = {place: shown[sum_]["measures"] for place, sum_ in sums.items() if sum_ in shown}
        if measures:
            found = tables_predictions.answers([board.table for board in here], measures)
            answers = [_answer(answer, titles) for answer in found]
            places.append({"profile": profile, "source": source, "answers": answers})
    return {"places": places, "least_tasks": tables_predictions.LEAST_TASKS} if places else {}


def _answer(answer: tables_predictions.Answer, titles: Mapping[str, str]) -> dict[str, Any]:
    points = [(f"{p.task.split('/')[-1]} {p.quality}", p.measure, p.gain) for p in answer.points]
    return {
        **vars(answer),
        "verdict": answer.verdict,
        "badge": BADGES.get(answer.verdict, "open"),
        "tasks": len({point.task for point in answer.points}),
        "pairs": ", ".join(" and ".join(titles.get(name, name) for name in pair) for pair in answer.question.pairs),
        "chart": charts.cloud(points) if points else None,
    }


def _ranking(board: Board, rows: list[BoardRow]) -> dict[str, Any]:
    ranked = _ranked(rows)
    returns = {row.algorithm: _last_returns(board, row) for row in ranked}
    ends = charts.spread(value for values in returns.values() for value in values)
    drawn = [
        {"row": row, "n": len(values), "least": min(values), "most": max(values)}
        | {"chart": charts.histogram(values, ends, row.dataset_mean)}
        for row in ranked
        if (values := returns[row.algorithm])
    ]
    played = NAMES.get(rows[0].play, "")
    about = {"board": board, "rows": ranked, "played": played, "digits": rows[0].digits}
    return about | {"histograms": drawn, "scale": ends}


def duel(board: Board, rows: Sequence[BoardRow], replays: Replays) -> dict[str, Any] | None:
    """The best method of a dataset beside cloning, in the play that has the standing; None without replays of both."""
    ranked = [row for row in _ranked(rows) if row.rank and row.play == board.table.plays[0]]
    played = [(row, found) for row in ranked if (found := of_runs(replays, board.runs[row.key], row.play))]
    best = next((pair for pair in played if pair[0].algorithm != CLONING), None)
    clone = next((pair for pair in played if pair[0].algorithm == CLONING), None)
    if not (best and clone and (pairs := duels(best[1], clone[1]))):
        return None
    both = [best[0], clone[0]]
    page = f"watch/{slug(both[0].task, both[0].quality, board.name, board.profile, board.source)}.html"
    title = f"{both[0].title} beside {both[1].title} on {both[0].label}"
    return {"board": board, "rows": both, "duels": pairs, "page": page, "title": title}


def cell(board: Board, row: BoardRow, replays: Replays) -> dict[str, Any]:
    """A method on a dataset: its seeds, curve, settings, where it ran, and those of the replays by run that it has."""
    runs = board.runs[row.key]
    in_units = [_in_units(board, run) for run in runs]
    played = {run["cell"]["seed"]: by_play(run).get(row.play) for run in in_units if run["status"] == "done"}
    seeds = {s: [(e["step"], float(np.mean(e["returns"]))) for e in found] for s, found in played.items() if found}
    steps = sorted({step for points in seeds.values() for step, _ in points})
    return {
        "board": board,
        "row": row,
        "scale": charts.reach([row]),
        "seeds": [_seed(run, row.play) for run in in_units],
        "steps": [{"step": step, "means": [dict(points).get(step) for points in seeds.values()]} for step in steps],
        "evaluated": list(seeds),
        "curve": charts.curve(seeds, row.dataset_mean) if seeds else None,
        "settings": settings(runs, board.suite.paper),
        "variants": _variants(runs),
        "environment": {name: together(part(run, key) for run in runs) for name, key in PLACES},
        "replays": of_page(of_runs(replays, runs, row.play)),
        "download": row.page.split("/")[-1].removesuffix(".html") + ".csv",
    }


def episodes(board: Board, row: BoardRow) -> list[list[Any]]:
    """Every evaluation episode of a cell in its play: head and rows, in returns as they were measured."""
    lines: list[list[Any]] = [["seed", "step", "play", "episode", "return", "length", "won"]]
    for run in board.runs[row.key]:
        for evaluation in by_play(run).get(row.play, ()):
            optional = as_list(evaluation.get("lengths")), as_list(evaluation.get("won"))
            for k, value in enumerate(evaluation["returns"]):
                extra = [values[k] if k < len(values) else "" for values in optional]
                lines.append([run["cell"]["seed"], evaluation["step"], row.play, k, value, *extra])
    return lines


def settings(runs: Sequence[Record], paper: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every setting of some runs of a method beside the paper's on the same tasks, and whether they differ."""
    ours = [part(run, "config") | part(run, "protocol") for run in runs]
    theirs = [paper.get((run["cell"]["task"], run["cell"]["algorithm"]), {}) for run in runs]
    names = dict.fromkeys(name for config in ours for name in config if name != "data")
    rows = []
    for name in names:
        own, printed = (listed(as_json(c[name]) for c in some if name in c) for some in (ours, theirs))
        rows.append({"name": name, "ours": own, "paper": printed, "differs": bool(printed) and own != printed})
    return sorted(rows, key=lambda row: not row["differs"])


def experiment(record: Record, name: str) -> dict[str, Any]:
    """An experiment: claim, verdict, figure and tables."""
    verdict, checks = studies.verdict(record)
    return {
        "name": name,
        "page": f"experiments/{slug(name)}.html",
        "picture": f"experiments/{slug(name)}.png",
        "title": record["title"],
        "claim": record["claim"],
        "verdict": verdict,
        "badge": BADGES.get(verdict, "open"),
        "foot": studies.foot(record),
        "tables": [studies.rules_table(checks), studies.results_table(record)],
        "below": studies.below(record),
    }


def devices(runs: Iterable[Record]) -> str:
    """The machines of some runs."""
    return listed(part(run, "machine").get("device") for run in runs)


def _variants(runs: Iterable[Record]) -> str:
    return listed(run["cell"]["variant"] for run in runs)


def _in_units(board: Board, run: Record) -> Record:
    """The run in the board's units: with scores for returns where the suite has them."""
    return scored(run) if run["cell"]["task"] in board.suite.yaml.get("normalised", ()) else run


def _last_returns(board: Board, row: BoardRow) -> list[float]:
    runs = [_in_units(board, run) for run in board.runs.get(row.key, []) if run["status"] == "done"]
    return [value for run in runs for last in by_play(run).get(row.play, [])[-1:] for value in last["returns"]]


def _seed(run: Record, play: str) -> dict[str, Any]:
    """A line of the table of seeds; a seed that did not finish has no numbers."""
    row = flat(run if run["status"] == "done" else run | {"evaluations": []}, play)
    return row | {"memory_mb": run.get("memory_mb"), "finished": str(run.get("finished") or "")}
