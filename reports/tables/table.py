"""The long table of a suite: one row per dataset and method, ours and the published number beside it."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offmarl.reports.published import findings as lint
from offmarl.reports.published import numbers as published
from offmarl.reports.records.reader import load_runs
from offmarl.reports.records.schema import ENDED
from offmarl.reports.tables.stats import estimate, rank_agreement, standings

Row = dict[str, Any]
AVERAGE, SCORE = "AVERAGE ", "normalised score"
FACTS = ("variant", "engine", "eval_noise")
LOST = tuple(status for status in ENDED if status != "done")  # of runs without a number
PROTOCOL = {"steps": "gradient step", "eval_episodes": "evaluation episode"}
ALIKE = {"steps": "gradient steps", "eval_episodes": "evaluation episodes", "eval_noise": "evaluation noise"}
COLUMNS = [
    *["group", "task", "quality", "unit", "algorithm", "title"],
    *["variant", "profile", "source", "engine", "config_hash", "reduced"],
    *["n_seeds", "mean", "two_std", "ci_low", "ci_high", "ci_over", "win_rate", "latency_ms", "dataset_mean"],
    *[
        "published_mean",
        "published_spread",
        "published_printed",
        "published_origin",
        "standing",
        "tied",
        "status",
        "reason",
    ],
]


def build(
    results: Path | str,
    suite: dict,
    name: str,
    profile: str,
    source: str,
    unavailable: dict[str, str],
    elsewhere: Collection[str] = (),
) -> pd.DataFrame:
    """The table of a suite (its parsed YAML) at one profile and source, in the suite's order.

    Methods are the suite's, then any other that ran on its datasets, but those of other suites (`elsewhere`) only if
    they ran on all of them; `unavailable` gives the reason for each method, and each dataset (task:quality), that does
    not exist. A group ends in a row of averages (`AVERAGE <group>`) for the methods with a number on all its datasets:
    `published_mean` is recomputed, `published_printed` is what the paper prints.
    Tasks that the suite names in `normalised` have scores for returns, which `unit` says.
    `standing` is "best" or "second" by mean, `tied` says that an interval overlaps that of the best.
    `reduced` has the sizes that fall short of the paper's, of an average those of all its cells.
    `attrs` holds what belongs around the table: `title`, `below`, a list of paragraphs, those of `below` that say
    what was measured in more than one way (`mixed`), and `columns`, notes about published columns with their titles.
    """
    normalised = suite.get("normalised", ())
    runs = load_runs(results, profile, source, normalised)
    chosen, notes = _one_variant(_of_suite(runs.to_dict("records"), suite, elsewhere))
    cells: dict[tuple, list[Row]] = defaultdict(list)
    for run in chosen:
        cells[run["task"], run["quality"], run["algorithm"]].append(run)
    wanted = max(map(len, cells.values()), default=0)
    titles = {run["algorithm"]: run["title"] or run["algorithm"] for run in chosen}
    methods = suite["algorithms"] | {key: titles[key] for key in sorted(titles.keys() - suite["algorithms"])}
    rows = []
    for group, tasks in suite["groups"].items():
        own = _group(group, tasks, methods, cells, wanted, unavailable)
        for row in own:
            row["unit"] = SCORE if row["task"] in normalised else "return"
        _beside(own, chosen, suite["published"])
        rows += [*own, *_averages(group, methods, own, suite["published"])]
    _mark_standings(rows)
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS)).assign(profile=profile, source=source)
    engines = sorted({run["engine"].split(" (")[0] for run in chosen if run["engine"]})
    table.attrs["title"] = f"{suite['title']}, re-run" + (f" on {', '.join(engines)}" if engines else "")
    below = [_caption(table, chosen, suite, name), _reduced(table), _scores(chosen, normalised), _agreement(table)]
    table.attrs["mixed"] = [*notes, *_mixed(chosen)]
    below += [*runs.attrs["notes"], *table.attrs["mixed"], *_unlocked(chosen), *_paper_notes(suite)]
    table.attrs["columns"] = lint.notes(suite["published"], list(methods.values()))
    table.attrs["below"] = [text for text in below if text]
    return table


def _group(
    group: str,
    tasks: dict[str, list[str]],
    methods: dict[str, str],
    cells: dict[tuple, list[Row]],
    wanted: int,
    unavailable: dict[str, str],
) -> list[Row]:
    """The rows of a group: a dataset's methods, dataset by dataset."""
    return [
        {"group": group, "task": task, "quality": quality, "algorithm": algorithm, "title": title}
        | _entry(cells[task, quality, algorithm], wanted, absent)
        for task, qualities in tasks.items()
        for quality in qualities
        for algorithm, title in methods.items()
        for absent in [unavailable.get(algorithm) or unavailable.get(f"{task}:{quality}")]
    ]


def _averages(group: str, methods: dict[str, str], own: list[Row], paper: str) -> list[Row]:
    """A group's rows of averages, with what the paper prints."""
    printed, unit, rows = published.printed_averages(paper), _listed(row["unit"] for row in own), []
    for algorithm, title in methods.items():
        average = _average([row for row in own if row["algorithm"] == algorithm])
        average |= {"task": AVERAGE + group, "published_printed": printed.get((group, title), (None,))[0]}
        rows.append(average | {"group": group, "unit": unit})
    return rows


def row_name(row: Row) -> str:
    """What a row of methods is called: '3m good', 'spread expert (score)'."""
    words = row["task"].split("/")[-1], row["quality"], "(score)" if row["unit"] == SCORE else ""
    return " ".join(filter(None, words))


def of_table(frame: pd.DataFrame, table: pd.DataFrame) -> list[Any]:
    """The rows of runs or curves that the table shows, in its order, with its title, group, unit and data mean."""
    found = defaultdict(list)
    for row in frame.to_dict("records"):
        found[row["task"], row["quality"], row["algorithm"], row["variant"]].append(row)
    return [
        row | {key: cell[key] for key in ("title", "group", "unit", "dataset_mean")}
        for cell in table.to_dict("records")
        for row in found[cell["task"], cell["quality"], cell["algorithm"], cell["variant"]]
    ]


def reduced_networks(table: pd.DataFrame) -> str:
    """The sizes of all networks smaller than the paper's: 'BC, MABCQ: hidden 128x128; OMIGA: mixer_width 32'.

    Where not all numbers of a method come from the same sizes, the datasets stand in parentheses.
    """
    cells: list[Any] = table.dropna(subset=["mean"]).to_dict("records")
    sizes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if not cell["task"].startswith(AVERAGE):
            sizes[cell["title"]][cell["reduced"]].append(row_name(cell))
    methods: dict[str, list[str]] = defaultdict(list)
    for title, found in sizes.items():
        for words in filter(None, found):
            methods[words + (f" ({', '.join(found[words])})" if len(found) > 1 else "")].append(title)
    return "; ".join(f"{', '.join(titles)}: {words}" for words, titles in methods.items())


def _of_suite(runs: list[Any], suite: dict, elsewhere: Collection[str]) -> list[Row]:
    """The runs on the suite's datasets, without those of guests that share a few of them only."""
    datasets = {(task, q) for tasks in suite["groups"].values() for task, qualities in tasks.items() for q in qualities}
    own = [run for run in runs if (run["task"], run["quality"]) in datasets]
    seen: dict[str, set] = defaultdict(set)
    for run in own:
        seen[run["algorithm"]].add((run["task"], run["quality"]))
    guests = {m for m in elsewhere if m not in suite["algorithms"] and seen[m] < datasets}
    return [run for run in own if run["algorithm"] not in guests]


def _one_variant(runs: list[Row]) -> tuple[list[Row], list[str]]:
    """Per algorithm the variant with most finished runs: a column must mean the same in every row."""
    finished: dict[str, Counter] = defaultdict(Counter)
    for run in runs:
        finished[run["algorithm"]][run["variant"]] += run["status"] == "done"
    shown = {algorithm: count.most_common(1)[0][0] for algorithm, count in finished.items()}
    notes = [
        f"{algorithm}: variant {shown[algorithm]} is shown; the store also has "
        + ", ".join(variant for variant in count if variant != shown[algorithm])
        for algorithm, count in finished.items()
        if len(count) > 1
    ]
    return [run for run in runs if run["variant"] == shown[run["algorithm"]]], notes


def _entry(runs: list[Row], wanted: int, unavailable: str | None) -> Row:
    """Number, status and reason of one cell from its runs, one per seed."""
    done = [run for run in runs if run["status"] == "done"]
    lost = [run for run in runs if run["status"] in LOST]
    reasons = "; ".join(dict.fromkeys(run["reason"] or "no reason recorded" for run in lost))
    nothing = {"n_seeds": 0, "reduced": ""}
    if not done and lost:
        return nothing | {"status": lost[0]["status"], "reason": reasons}
    if not done and unavailable:
        return nothing | {"status": "not available", "reason": unavailable}
    if not done:
        return nothing | {"status": "pending", "reason": "not run yet"}
    told = f"{len(done)} of {wanted} seeds" + (f"; the others {lost[0]['status']}: {reasons}" if lost else "")
    episodes = {run["seed"]: run["episodes"] for run in done}
    return estimate([episodes]) | {
        **{key: done[0][key] for key in ("variant", "config_hash")},
        **{key: float(np.mean([run[key] for run in done])) for key in ("win_rate", "latency_ms")},
        "engine": _listed(run["engine"] for run in done),
        "reduced": _joined(run["reduced"] for run in runs),
        "status": "partial" if len(done) < wanted else "done",
        "reason": told if len(done) < wanted else "",
        "episodes": episodes,
    }


def _beside(rows: list[Row], runs: list[Row], name: str) -> None:
    """Adds to every cell the mean return of its data, and the published number and its origin where there is one."""
    paper, origins = published.cells(name), published.origins(name)
    data = {(run["task"], run["quality"]): run["dataset_mean"] for run in runs if run["status"] == "done"}
    for row in rows:
        row["dataset_mean"] = data.get((row["task"], row["quality"]), np.nan)
        key = row["task"].split("/")[-1], row["quality"], row["title"]
        row["published_mean"], row["published_spread"] = paper.get(key, (np.nan, np.nan))
        row["published_origin"] = origins.get(key, "")


def _average(cells: list[Row]) -> Row:
    """The mean over a group's cells of one method; no number unless every cell has one."""
    row = {key: cells[0][key] for key in ("algorithm", "title")} | {"quality": "", "n_seeds": 0, "reduced": ""}
    for key in ("win_rate", "latency_ms", "dataset_mean", "published_mean"):
        row[key] = float(np.mean([cell.get(key, np.nan) for cell in cells]))
    numbers = [cell["episodes"] for cell in cells if "episodes" in cell]
    statuses = {cell["status"] for cell in cells}
    if statuses == {"not available"}:
        return row | {"status": "not available", "reason": cells[0]["reason"]}
    if len(numbers) < len(cells):
        return row | {"status": "pending", "reason": f"{len(numbers)} of {len(cells)} datasets"}
    row |= {key: _listed(cell[key] for cell in cells) for key in ("variant", "engine")} | estimate(numbers)
    row["reduced"] = _joined(cell["reduced"] for cell in cells)
    if "partial" in statuses:
        return row | {"status": "partial", "reason": "fewer seeds on some datasets"}
    return row | {"status": "done", "reason": ""}


def _mark_standings(rows: list[Row]) -> None:
    """Marks the best and second mean in each row of methods, and the intervals that overlap the best's."""
    ranked = defaultdict(list)
    for row in rows:
        row |= {"standing": "", "tied": False}
        if "mean" in row:
            ranked[row["task"], row["quality"]].append(row)
    for competitors in ranked.values():
        if len(competitors) < 2:
            continue
        for row, standing in zip(competitors, standings([row["mean"] for row in competitors])):
            row["standing"] = standing
        best = [row["ci_low"] for row in competitors if row["standing"] == "best"]
        reach = min((low for low in best if not np.isnan(low)), default=np.nan)  # without an interval nothing is tied
        for row in competitors:
            row["tied"] = row["standing"] != "best" and row["ci_high"] >= reach


def _mixed(runs: list[Row]) -> list[str]:
    """Notes where runs do not share their dataset's data or simulator, or all runs the protocol."""
    notes = []
    done = [run for run in runs if run["status"] == "done"]
    kinds = {"dataset_sha256": "recording of the data", "engine": "version of the simulator"}
    for key, what in (kinds | {"rollout": "reference rollout of the simulator"}).items():
        values = defaultdict(set)
        for run in done:
            if run[key] is not None:  # older runs lack some
                values[f"{run['task']} {run['quality']}"].add(run[key])
        places = [dataset for dataset, found in values.items() if len(found) > 1]
        if places:
            notes.append(f"More than one {what}, so the numbers do not compare: {', '.join(places)}.")
    return notes + [note for key, what in ALIKE.items() for note in _unlike(done, key, what)]


def _unlike(done: list[Row], key: str, what: str) -> list[str]:
    """Notes where one part of the protocol is not the same in all of a method's column, or in all columns."""
    columns: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run in done:
        value = "unknown" if pd.isna(run[key]) else run[key] if isinstance(run[key], str) else f"{int(run[key]):,}"
        columns[run["title"] or run["algorithm"]][value].append(f"{run['task'].split('/')[-1]} {run['quality']}")
    notes, alike = [], defaultdict(list)
    for title, found in columns.items():
        usual, *others = sorted(found, key=lambda value: -len(found[value]))
        if others:
            told = [f"{value} on {', '.join(dict.fromkeys(found[value]))}" for value in others]
            notes.append(f"{title} has not the same {what} on all datasets: {usual}, but {', '.join(told)}.")
        alike[usual].append(title)
    if len(alike) > 1:
        told = [f"{value} of {', '.join(titles)}" for value, titles in alike.items()]
        notes.append(f"Not every method has the same {what}: {'; '.join(told)}.")
    return notes


def _scores(runs: list[Row], normalised: Collection[str]) -> str:
    """How the scores of the normalised tasks are made, in words."""
    ends = {run["task"]: run["score"] for run in runs if run["task"] in normalised and run["score"]}
    rules = [
        f"{task.split('/')[-1]} 100 (return - {low:g}) / ({high:g} - {low:g})" for task, (low, high) in ends.items()
    ]
    return f"Normalised scores instead of returns: {'; '.join(rules)}." if rules else ""


def _unlocked(runs: list[Row]) -> list[str]:
    """A note where a simulator's package has another version than offmarl requires."""
    places: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        if run["unlocked"]:
            places[run["unlocked"]].add(run["task"].split("/")[-1])
    return [
        f"Measured with {what}, which moves trajectories: {', '.join(sorted(tasks))}." for what, tasks in places.items()
    ]


def _caption(table: pd.DataFrame, runs: list[Row], suite: dict, name: str) -> str:
    """What was measured, how, and what the published numbers are."""
    done, facts = [run for run in runs if run["status"] == "done"], published.FACTS[suite["published"]]
    caption = f"Profile {table['profile'].iloc[0]}, source {table['source'].iloc[0]}"
    if done:
        seeds = span(table.query("n_seeds > 0")["n_seeds"], "seed")
        steps, episodes = (span([run[key] for run in done], unit) for key, unit in PROTOCOL.items())
        variant, engine, noise = (_listed(run[key] for run in done) for key in FACTS)
        caption += f", variant {variant}, on {engine}; {seeds}, {steps}, {episodes} per seed, evaluation "
        caption += f"noise {noise}. Numbers are {_numbers(table)}"
    else:
        caption += f": no finished run yet (`offmarl run --suite {name}`)."
    paper = f" Paper: {suite['paper']}, mean ± {facts['spread']} as printed, from {facts['engine']}. It"
    return caption + paper + " stands beside ours for the ranking only: it is not the same measurement."


def _numbers(table: pd.DataFrame) -> str:
    """What the numbers and their intervals are; what has fewer than three seeds has none."""
    over = [over == "seeds" for over in table.dropna(subset=["mean"])["ci_over"]]
    if not any(over):
        return "mean returns after the last step; fewer than three seeds: no interval."
    text = "mean returns [95 % interval] after the last step, Student's t over the means of the seeds."
    return text if all(over) else f"{text} With fewer than three seeds: no interval."


def _reduced(table: pd.DataFrame) -> str:
    """The sizes of the reduced networks as a sentence; empty where there are none."""
    sizes = reduced_networks(table)
    return f"Reduced networks (smaller than the paper's): {sizes}." if sizes else ""


def _agreement(table: pd.DataFrame) -> str:
    """Kendall's tau with the paper, in words; empty while no dataset has three methods."""
    taus = rank_agreement(table)
    datasets = [found for (task, _), found in taus.items() if not task.startswith(AVERAGE)]
    if not datasets:
        return ""
    mean, methods = np.mean([tau for tau, _ in datasets]), span([n for _, n in datasets], "method")
    text = "Rank agreement with the paper (Kendall's tau-b over methods; 1 is the same order): "
    text += f"{mean:.2f}, the mean over {span([len(datasets)], 'dataset')} of {methods}"
    averages = [f"{task} {tau:.2f} ({n})" for (task, _), (tau, n) in taus.items() if task.startswith(AVERAGE)]
    return "; ".join([text, *averages]) + "."


def _paper_notes(suite: dict) -> list[str]:
    averages = "Averages of the paper are recomputed from its cells."
    return [averages, published.FACTS[suite["published"]]["provenance"]]


def _listed(values: Iterable[Any]) -> str:
    return _joined(values) or "unknown"


def _joined(values: Iterable[Any]) -> str:
    return "; ".join(sorted({str(value) for value in values if value}))


def span(values: Iterable[float], unit: str) -> str:
    """The range of some counts in words: '1 seed', '2 seeds', '1 to 3 seeds'."""
    numbers = sorted({int(value) for value in values if not pd.isna(value)}) or [0]
    text = f"{numbers[0]:,}" + (f" to {numbers[-1]:,}" if len(numbers) > 1 else "")
    return f"{text} {unit}{'' if numbers == [1] else 's'}"
