"""The text below the table of a suite: what was measured, how, and what is not comparable."""

import math
from collections import defaultdict
from collections.abc import Collection

import numpy as np
import pandas as pd

from offmarl.reports.published import numbers as published
from offmarl.reports.records.schema import TRAINED, strayed
from offmarl.reports.tables.stats import MIN_SEEDS, estimate, rank_agreement
from offmarl.reports.tables.table import AVERAGE, Row, Run, listed, reduced_networks, span

SHARED = {  # what the runs of a dataset should share
    "dataset_sha256": "recording of the data",
    "engine": "version of the simulator",
    "rollout": "reference rollout of the simulator",
}
ALL = "all"  # variants, in the notes of a suite
TUNED = "tuned"  # the variant whose settings `offmarl tune` chose
PROTOCOL = {
    "steps": "number of gradient steps",
    "transitions": "number of training transitions (each row of a window counts)",
    "eval_episodes": "number of evaluation episodes",
    "timeouts": "treatment of time-outs",
}


def below(rows: list[Row], runs: list[Run], selection: list[str], suite: dict, name: str) -> list[str]:
    """The paragraphs below a table; `selection` are those that say which runs it shows and whether they compare."""
    facts, sizes = published.FACTS.get(suite.get("published", ""), {}), reduced_networks(rows)
    paragraphs = [
        _caption(rows, runs, suite, name),
        f"Reduced networks and settings (smaller than the paper's): {sizes}." if sizes else "",
        _scores(runs, suite.get("normalised", ())),
        _derived(rows),
        _agreement(rows),
        *_variants(rows, suite.get("notes", {})),
        _untuned(rows, suite.get("untuned", {})),
        *selection,
        *_unlocked(runs),
        *_strayed(runs),
        *_moving(rows, runs),
        "Averages of the paper are recomputed from its cells." if facts else "",
        facts.get("provenance", ""),
    ]
    return [text for text in paragraphs if text]


def _variants(rows: list[Row], notes: dict[str, dict[str, str]]) -> list[str]:
    """What the suite says of the variants that the table shows."""
    shown = {(row.algorithm, row.variant): row.title for row in rows if row.has_mean and not row.is_average}
    texts = {
        title: [text for name, text in notes.get(algorithm, {}).items() if name in (variant, ALL)]
        for (algorithm, variant), title in shown.items()
    }
    return [f"{title}: {text}" for title, found in texts.items() for text in found]


def _untuned(rows: list[Row], untuned: dict[str, list[str]]) -> str:
    """Which methods have the paper's settings where tuned ones are shown, because none were chosen."""
    shown: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        family = row.task.split("/")[0]
        if row.has_mean and TUNED in (row.variant or "").split("+") and family in untuned.get(row.algorithm, ()):
            shown[row.title] += [] if family in shown[row.title] else [family]
    alike: dict[str, list[str]] = defaultdict(list)
    for title, families in shown.items():
        alike[", ".join(families)].append(title)
    places = "; ".join(f"{', '.join(titles)} ({families})" for families, titles in alike.items())
    return f"Not tuned, so the settings that tuning would search keep the paper's values: {places}." if places else ""


def rerun_on(runs: list[Run]) -> str:
    """The end of a table's title: which simulators its runs used."""
    engines = sorted({run["engine"].split(" (")[0] for run in runs if run["engine"]})
    return ", re-run" + (f" on {', '.join(engines)}" if engines else "")


def mixed(runs: list[Run]) -> list[str]:
    """Notes where runs do not share their dataset's data or simulator, or all runs the protocol."""
    notes = []
    done = [run for run in runs if run["status"] == "done"]
    for key, what in SHARED.items():
        values = defaultdict(set)
        for run in done:
            if run[key] is not None:  # older runs do not say
                values[f"{run['task']} {run['quality']}"].add(run[key])
        places = [dataset for dataset, found in values.items() if len(found) > 1]
        if places:
            notes.append(f"More than one {what}, so the numbers are not comparable: {', '.join(places)}.")
    return notes + [note for key, what in PROTOCOL.items() for note in _unlike(done, key, what)]


def _unlike(done: list[Run], key: str, what: str) -> list[str]:
    """Notes where one part of the protocol differs within a method's column, or between columns."""
    columns: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for run in done:
        value = "unknown" if pd.isna(run[key]) else run[key] if isinstance(run[key], str) else f"{int(run[key]):,}"
        columns[run["title"] or run["algorithm"]][value].append(f"{run['task'].split('/')[-1]} {run['quality']}")
    differing, usual_of = defaultdict(list), defaultdict(list)
    for title, found in columns.items():
        usual, *others = sorted(found, key=lambda value: -len(found[value]))
        if others:
            places = [f"{value} on {', '.join(dict.fromkeys(found[value]))}" for value in others]
            differing[f"{usual}, but {', '.join(places)}"].append(title)
        usual_of[usual].append(title)
    notes = []
    for values, titles in differing.items():
        do = "does" if len(titles) == 1 else "do"
        notes.append(f"{', '.join(titles)} {do} not have the same {what} on all datasets: {values}.")
    if len(usual_of) > 1:
        values = [f"{value} for {', '.join(titles)}" for value, titles in usual_of.items()]
        notes.append(f"Not every method has the same {what}: {'; '.join(values)}.")
    return notes


def lost(rows: list[Row]) -> list[str]:
    """A note on the cells that lost seeds, and the rule that holds for them everywhere."""
    found = [row for row in rows if row.n_lost and not row.is_average]
    places = [f"{row.title} on {row.label} ({row.n_lost} of {row.n_lost + row.n_seeds})" for row in found]
    rule = "Seeds that failed or diverged are lost. A cell that lost one is partial: its number covers the others and "
    rule += "is left out of standings, averages, aggregates and rank agreement"
    return [f"{rule}: {', '.join(places)}."] if places else []


def on_boards(runs: list[Run], suite: dict) -> list[str]:
    """Where the methods are shown that ran on the datasets of a suite and that only its boards have."""
    places: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        if board := suite.get("on_boards", {}).get(run["algorithm"]):
            places[board][run["title"] or run["algorithm"]] = None
    return [f"Run too, and shown by `offmarl report --suite {b}`: {', '.join(found)}." for b, found in places.items()]


def _scores(runs: list[Run], normalised: Collection[str]) -> str:
    """How the scores of the normalised tasks are made."""
    limits = {run["task"]: run["score"] for run in runs if run["task"] in normalised and run["score"]}
    rules = [
        f"{task.split('/')[-1]} 100 (return - {low:g}) / ({high:g} - {low:g})" for task, (low, high) in limits.items()
    ]
    return f"Normalised scores instead of returns: {'; '.join(rules)}." if rules else ""


def _derived(rows: list[Row]) -> str:
    """What derived datasets are made from."""
    origins = {row.label: row.made_from for row in rows if row.made_from and row.play == rows[0].play}
    return f"Derived datasets: {'; '.join(f'{label}: {text}' for label, text in origins.items())}." if origins else ""


def _strayed(runs: list[Run]) -> list[str]:
    """A note on the cells whose critics are far from the data's own discounted return."""
    places: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["status"] == "done" and strayed(run):
            dataset = f"{run['task'].split('/')[-1]} {run['quality']}"
            places[run["title"] or run["algorithm"]][dataset].append(run["value"] / run["data_value"])
    if not places:
        return []
    told = []
    for title, datasets in places.items():
        names = ", ".join(datasets) if len(datasets) <= 3 else f"{len(datasets)} datasets"
        shares = [share for seeds in datasets.values() for share in seeds]
        ends = dict.fromkeys(f"{end(shares):.2g}" for end in (min, max))
        told.append(f"{title} on {names} ({' to '.join(ends)})")
    rule = "Critics whose mean value on the data is not within half to twice the data's discounted return"
    return [f"{rule} (in parentheses their share of it): {'; '.join(told)}. `offmarl status` lists every run."]


def _moving(rows: list[Row], runs: list[Run]) -> list[str]:
    """A note on the cells that were still moving: the mean of the evaluation before the last is not in its interval."""
    last, before = (defaultdict(dict) for _ in range(2))
    for run in runs:
        if run["status"] == "done" and run["play"] == rows[0].play and len(run["evaluations"]) > 1:
            place = run["title"] or run["algorithm"], f"{run['task'].split('/')[-1]} {run['quality']}"
            for means, evaluation in zip((before, last), run["evaluations"][-2:]):
                means[place][run["seed"]] = evaluation["returns"]
    ends = {place: estimate([last[place]]) for place in last if len(last[place]) >= MIN_SEEDS}
    earlier = {place: estimate([before[place]])["mean"] for place in ends}
    moving: dict[str, list[str]] = defaultdict(list)
    for (title, dataset), end in ends.items():
        if not end["ci_low"] <= earlier[title, dataset] <= end["ci_high"]:
            moving[title].append(dataset)
    if not moving:
        return []
    places = "; ".join(f"{title} on {', '.join(found)}" for title, found in moving.items())
    count = f"{sum(map(len, moving.values()))} of {len(ends)} cells"
    return [
        "Still moving: the mean of the evaluation before the last is outside the interval of the last "
        f"in {count} ({places})."
    ]


def _unlocked(runs: list[Run]) -> list[str]:
    """Notes where a simulator's package has another version than offmarl requires."""
    places: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        if run["unlocked"]:
            places[run["unlocked"]].add(run["task"].split("/")[-1])
    return [
        f"Measured with {what}, which changes trajectories: {', '.join(sorted(tasks))}."
        for what, tasks in places.items()
    ]


def _caption(rows: list[Row], runs: list[Run], suite: dict, name: str) -> str:
    """What was measured, how, and what the published numbers are."""
    done = [run for run in runs if run["status"] == "done"]
    caption = f"Profile {rows[0].profile}, source {rows[0].source}"
    if done:
        seeds = span((row.n_seeds for row in rows if row.n_seeds), "seed")
        steps = span((run["steps"] for run in done), "gradient step")
        seen = [run["transitions"] for run in done if not math.isnan(run["transitions"])]  # older runs do not say
        steps += f" ({span(seen, 'transition')})" if seen else ""
        episodes = span((run["eval_episodes"] for run in done), "evaluation episode")
        variant, engine = (listed(run[key] for run in done) or "unknown" for key in ("variant", "engine"))
        caption += f", variant {variant}, on {engine}; {seeds}, {steps}, {episodes} per seed. "
        if timeouts := listed(run["timeouts"] for run in done):
            caption += f"Time-outs are {timeouts}. "
        caption += f"{_plays(rows)} Numbers are {_intervals(rows)}"
    elif any(run["status"] == TRAINED for run in runs):
        caption += ": there is no environment, so nothing was played; held_out.md has agreement with the data."
    else:
        caption += f": no finished run yet (`offmarl run --suite {suite.get('called', name)}`)."
    caption += " " + note if (note := suite.get("profile_notes", {}).get(rows[0].profile)) else ""
    if not (facts := published.FACTS.get(suite.get("published", ""))):
        return caption
    paper = f" Paper: {suite['paper']}, mean ± {facts['spread']} as printed, from {facts['engine']}. It"
    return caption + paper + " is shown for the ranking only: it is not the same measurement."


def _plays(rows: list[Row]) -> str:
    """How the trained networks were played, and what decisions draw."""
    texts = []
    for play in dict.fromkeys(row.play for row in rows):
        drawn: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.play == play and row.has_mean and row.title not in drawn[row.acting]:
                drawn[row.acting].append(row.title)
        rules = [f"{', '.join(titles)}: {rule}" for rule, titles in drawn.items() if rule]
        rules = ["no noise for any method"] if play == "zero" else rules
        texts.append(play + (f" ({'; '.join(rules)})" if rules else ""))
    first, *others = texts
    also = f" The same networks were also played in mode {', '.join(others)}, which is not ranked." if others else ""
    return f"Play mode: {first}.{also}"


def _intervals(rows: list[Row]) -> str:
    """What the numbers and their intervals are."""
    over_seeds = [row.ci_over == "seeds" for row in rows if row.has_mean]
    if not any(over_seeds):
        return "mean returns after the last step; fewer than three seeds: no interval."
    text = "mean returns [95 % interval] after the last step, Student's t over the means of the seeds."
    return text if all(over_seeds) else f"{text} With fewer than three seeds: no interval."


def _agreement(rows: list[Row]) -> str:
    """Kendall's tau with the paper; empty while no dataset has three methods."""
    taus = rank_agreement(rows)
    datasets = [found for (task, _), found in taus.items() if not task.startswith(AVERAGE)]
    if not datasets:
        return ""
    mean, methods = np.mean([tau for tau, _ in datasets]), span([n for _, n in datasets], "method")
    text = "Rank agreement with the paper (Kendall's tau-b over methods; 1 is the same order): "
    text += f"{mean:.2f}, the mean over {span([len(datasets)], 'dataset')} of {methods}"
    averages = [f"{task} {tau:.2f} ({n})" for (task, _), (tau, n) in taus.items() if task.startswith(AVERAGE)]
    return "; ".join([text, *averages]) + "."
