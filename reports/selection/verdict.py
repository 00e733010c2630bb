"""What `offmarl judge` says: which trained policy to take, how sure that is, or what would help to tell."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from offmarl.reports.measures import described
from offmarl.reports.records.files import read_each
from offmarl.reports.records.replay import SUFFIX
from offmarl.reports.selection.offline import Values
from offmarl.reports.selection.pool import Policy, Pool
from offmarl.reports.selection.trust import NAMES, Judged, judged_from, trusted
from offmarl.reports.tables.markdown import escape
from offmarl.reports.tables.markdown import table as markdown_table


class Asked(NamedTuple):
    """What was judged, for the commands on the page."""

    suite: str
    profile: str
    share: float  # of the episodes that were trained on
    seen: int  # episodes that were trained on
    held_out: int  # the others
    results: Path  # with the runs
    more: str  # options that every command needs
    played: bool  # whether the task has an environment


def evidence(results: Path, profile: str, share: float, source: str, dataset: str) -> dict[str, Judged]:
    """Family to the selector to trust in it, by what `select --offline` found at a profile, share and source.

    Of several findings on a family the one on most datasets counts, then that on most policies, also where it trusts
    nobody. What was found on the judged dataset (task:quality) itself does not count.
    """
    judged_family = dataset.split("/")[0]

    def take(_: Path, record: Mapping[str, Any]) -> list[Judged]:
        if (record["profile"], record["share"], record["source"]) != (profile, share, source):
            return []
        others = record["without"].get(dataset)
        kept = [row for row in record["judged"] if others is None or row["family"] != judged_family]
        return [judged_from(row) for row in [*kept, *(others or ())]]

    broadest: dict[str, tuple[tuple[int, int], Judged | None]] = {}
    for own in read_each(results / "measurements" / "trust", take)[0]:
        for family in {one.family for one in own}:
            size = max((one.datasets, one.policies) for one in own if one.family == family)
            if family not in broadest or size > broadest[family][0]:
                broadest[family] = size, trusted(own, family)
    return {family: best for family, (_, best) in broadest.items() if best}


def choose(pool: Pool, values: Values, by: Judged | None) -> Policy | None:
    """The policy that the trusted selector likes best; None without one, or where it says nothing of any."""
    if by is None:
        return None
    given = values.get(by.selector, {})
    numbers = {run_id: value for run_id, value in given.items() if value is not None and math.isfinite(value)}
    known = [policy for policy in pool.policies if policy.run_id in numbers]
    return max(known, key=lambda policy: numbers[policy.run_id], default=None)


def facts(
    pool: Pool,
    values: Values,
    known: Mapping[str, Judged],
    measures: Mapping[str, Any],
    asked: Asked,
    lost: Sequence[str],
) -> dict[str, Any]:
    """What the page shows, as plain values; `known` is `evidence`, `lost` names what was not trained to the end."""
    by = known.get(pool.task.split("/")[0])
    chosen = choose(pool, values, by)
    return {
        "title": f"{pool.task}:{pool.quality} ({pool.source})",
        "chosen": chosen,
        "sure": _sure(chosen, by) if chosen and by else _unsure(pool, known, asked.profile),
        "lines": _uses(chosen, pool, asked) if chosen else _help(pool, asked),
        "file": str(asked.results / "runs" / chosen.run_id / "checkpoint.pt") if chosen else "",
        "how": " ".join(
            [*_split(pool, asked), f"The data's episodes return {measures['returns']['mean']:.4g} on average."]
        ),
        "lost": list(lost),
        "trained": _trained(pool, values, chosen),
        "told": described(measures),
    }


def markdown(shown: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    chosen, (head, rows) = shown["chosen"], shown["trained"]
    parts = [f"# {escape(shown['title'])}: which policy to take"]
    parts += [f"**{escape(chosen.title)}**, seed {chosen.seed}." if chosen else "**Cannot tell.**"]
    parts += [" ".join(shown["sure"]), *([f"The policy: `{shown['file']}`"] if chosen else ["What would help:"])]
    parts += ["\n".join(f"* {text}" + f": `{command}`" * bool(command) for text, command in shown["lines"])]
    cells = [[escape(row[0]), *row[1:]] for row in rows]
    parts += ["## What was trained", shown["how"], markdown_table(head, cells, numbers=True)]
    parts += [f"Not trained to the end: {escape('; '.join(shown['lost']))}."] if shown["lost"] else []
    parts += ["## The data", markdown_table(["", ""], [[name, escape(text)] for name, text in shown["told"].items()])]
    return "\n\n".join(parts) + "\n"


def _split(pool: Pool, asked: Asked) -> list[str]:
    """What policies were trained on, and what they are compared with."""
    start = f"{len(pool.policies)} policies at the profile {asked.profile}, trained on"
    if asked.held_out:
        start += f" {asked.seen} of {asked.seen + asked.held_out} episodes."
        found = [start, f"The other {asked.held_out}, drawn once for all, are what agreement is measured on."]
    else:
        few = "too few to hold any out; agreement is measured on what was trained on."
        found = [f"{start} all {asked.seen} episodes:", few]
    watched = "Of those trained on, training itself held out up to a tenth to watch its progress, as nothing is played."
    return found + [watched] * (not asked.played)


def _sure(chosen: Policy, by: Judged) -> list[str]:
    low, high = by.regret[1:]
    return [
        f"Chosen by {NAMES[by.selector]}, without playing.",
        f"How sure: on {by.datasets} datasets of this family its rank correlation with played returns was "
        f"{by.rho[0]:.2f}. Its choices scored {by.regret[0]:.2f} [{low:.2f}, {high:.2f}] below the best, policies "
        f"picked at random {by.random_regret:.2f} below; {by.luck:.1%} of lucky picks do as well.",
    ]


def _unsure(pool: Pool, known: Mapping[str, Judged], profile: str) -> list[str]:
    others = "; ".join(f"{family}: {NAMES[one.selector]}" for family, one in sorted(known.items()))
    family = pool.task.split("/")[0]
    untried = "none has shown there that it finds good policies without playing them"
    found = [f"No selector can be trusted on {family} at the profile {profile}: {untried}."]
    return found + ([f"Trusted elsewhere, which says little here: {others}."] if others else [])


def _uses(chosen: Policy, pool: Pool, asked: Asked) -> list[tuple[str, str]]:
    """What can be done with the chosen policy: a few words, and a command."""
    place = f"{chosen.run_id} --results {asked.results}"
    load = f'offmarl.experiments.api.load_policy("{chosen.run_id}", "{asked.results}")'
    plays = [("It plays", f"offmarl play {place}{asked.more}")]
    if any((asked.results / "runs" / chosen.run_id).glob(f"*{SUFFIX}")):
        plays += [("To be watched", f"offmarl watch {place}{asked.more}")]
    sizes = f"--suite {asked.suite} --tasks {pool.task} --algorithms {chosen.algorithm} --profile {asked.profile}"
    timed = ("The time of its decisions", f"offmarl latency {sizes}{asked.more}")
    return [*(plays if asked.played else []), timed, ("From Python", load)]


def _help(pool: Pool, asked: Asked) -> list[tuple[str, str]]:
    """What would tell more: a few words, and a command where there is one."""
    select = f"offmarl select --suite {asked.suite} --profile {asked.profile} --data-fraction {asked.share} --train"
    select += f" --offline --source {pool.source} --results {asked.results.parent}{asked.more}"
    trust = "Test selectors on two or more datasets of the family; --dry-run says how long training takes"
    if not asked.played:
        load = f'offmarl.experiments.api.load_policy(RUN_ID, "{asked.results}")'
        simulator = "A simulator of the task, even a rough one (`make` in its file), in which selectors are tried"
        return [(simulator, ""), ("A few episodes of each policy in the real system; from Python", load)]
    play = f"offmarl play RUN_ID --episodes 10 --results {asked.results}{asked.more}"
    return [(trust, select), ("Play ten episodes of each policy; no selector tells as much", play)]


def _trained(pool: Pool, values: Values, chosen: Policy | None) -> tuple[list[str], list[list[str]]]:
    """Head, and a row for each policy: selectors, then what it returned when it was played, which chose nothing."""
    rows = []
    for policy in sorted(
        pool.policies, key=lambda policy: -float(policy.episodes.sum() / max(1, len(policy.episodes)))
    ):
        own = [given.get(policy.run_id) for given in values.values()]
        mark = " (chosen)" if chosen and policy.run_id == chosen.run_id else ""
        count = len(policy.episodes)
        error = f" ± {policy.episodes.std(ddof=1) / count**0.5:.2g}" if count > 1 else ""
        played = f"{policy.episodes.mean():.4g}{error} ({count} episodes)" if count else "never played"
        numbers = ["–" if v is None else f"{v:.4g}" for v in own]
        rows.append([policy.title + mark, str(policy.seed), *numbers, played, policy.run_id])
    return ["method", "seed", *(NAMES[name] for name in values), "played return ± standard error", "run"], rows
