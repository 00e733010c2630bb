"""`offmarl data derive`: a dataset made from others, by whole episodes and a seed."""

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from offmarl.experiments.commands.options import data_source, declare, find_entries
from offmarl.experiments.errors import UserError, check_name

if TYPE_CHECKING:
    from offmarl.datasets.cache import Entry
    from offmarl.datasets.derived import Recipe

WORD = r"[a-z0-9][A-Za-z0-9_-]{0,39}"
NEAR = 1e-6  # of 1, that weights must sum to


def derive_options(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare it among the actions of `offmarl data`."""
    text = "make a new quality of a task from whole episodes of its other datasets; its table row names the origin"
    few = ("data derive few --from smac/3m:good --episodes 100", "then: run --suite smac --tasks smac/3m:few")
    mixed = ("data derive mixed --from smac/3m:good,smac/3m:poor:0.2", "eight parts of good, two of poor")
    call = "data derive level --from mpe/spread:medium-replay --returns-like mpe/spread:random"
    like = (call, "with returns spread as those of random")
    one = add("derive", text, _derive, few, mixed, like)
    one.add_argument("name", help="of the new quality: small letters, digits, - and _")
    text = "datasets of one task, with weights: smac/3m:good,smac/3m:poor:0.2. One may have no weight and gets the "
    text += "rest; without any weights, all episodes are joined"
    one.add_argument("--from", dest="parents", required=True, metavar="DATASETS", help=text)
    amount = one.add_mutually_exclusive_group()
    amount.add_argument("--episodes", type=int, metavar="N", help="number of episodes (default: all the weights allow)")
    text = "whole episodes of at most so many transitions; weights are then of transitions"
    amount.add_argument("--transitions", type=int, metavar="N", help=text)
    amount.add_argument("--fraction", type=float, default=1.0, metavar="SHARE", help="this share of the episodes: 0.1")
    text = "only episodes that these behaviours recorded, which are numbered from 0: 0 or 0,2; "
    text += "random actions cannot be left out, since recordings do not mark them"
    one.add_argument("--only-behaviour", dest="behaviours", metavar="K", help=text)
    text = "choose episodes whose returns are distributed as in another dataset, decile by decile"
    one.add_argument("--returns-like", dest="like", metavar="DATASET", help=text)
    one.add_argument("--seed", type=int, default=0, help="of the draw of episodes (default: 0)")
    one.add_argument("--source", help="embedded (default), og_marl, omiga, omar, or own (default with --task)")
    declare(one, "--task")


def _derive(args: argparse.Namespace) -> int:
    from offmarl.datasets.catalogue import SOURCES, catalogue
    from offmarl.datasets.derived import new

    recipe, source = _recipe(args), check_name("source", data_source(args), SOURCES)
    parents = [*(find_entries([name], source)[0] for name in recipe.parents)]
    others = find_entries([recipe.like], source) if recipe.like else []
    if strange := [entry.task.name for entry in parents if entry.task != parents[0].task]:
        raise UserError(f"--from: {strange[0]} is not {parents[0].task.name}; join datasets of one task")
    _check_name(args.name, parents[0].task.name)
    try:
        for entry in [*parents, *others]:
            entry.load()  # records or converts what is not here yet
        known = catalogue(source)
        entry = new(args.name, source, recipe, known)
        there = known.get((entry.task.name, args.name))
        if there is not None and there.key() != entry.key():
            raise UserError(f"{args.name}: is another derived dataset; name this one otherwise, or {_delete(there)}")
        _, card = entry.load()
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    facts = ", ".join(f"{key} {card[key]:,}" for key in ("episodes", "transitions", "return_mean", "return_std"))
    print(f"written: {entry.place()}\n{entry.task.name}:{args.name}: {card['made_from']}; {facts}")
    return 0


def _recipe(args: argparse.Namespace) -> "Recipe":
    """What is asked for. Raises UserError for numbers that make no sense."""
    from offmarl.datasets.derived import Recipe

    for option in ("episodes", "transitions"):
        if (count := getattr(args, option)) is not None and count < 1:
            raise UserError(f"--{option} {count}: write a number of at least 1")
    if not 0 < args.fraction <= 1:
        raise UserError(f"--fraction {args.fraction:g}: write a share above 0 and at most 1")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: write a number of at least 0")
    if args.behaviours is not None and not re.fullmatch(r"\d{1,4}(,\d{1,4})*", args.behaviours):
        raise UserError(f"--only-behaviour {args.behaviours}: write numbers: 0 or 0,2")
    behaviours = tuple(sorted({int(word) for word in args.behaviours.split(",")})) if args.behaviours else ()
    names, weights = _parents(args.parents)
    amounts = (args.episodes, args.transitions, args.fraction)
    if args.like is not None and args.like.count(":") != 1:
        raise UserError(f"--returns-like {args.like}: must be task:quality, for example smac/3m:good")
    return Recipe(names, weights, *amounts, behaviours, args.like, args.seed)


def _parents(text: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and weights of --from; no weights where none is given. Raises UserError where they do not sum to 1."""
    found: dict[str, float | None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"([^:,]+:[^:,]+)(?::([^:,]+))?", part.strip())
        try:
            weight = float(match[2]) if match and match[2] else None
        except ValueError:
            match = weight = None
        if match is None:
            raise UserError(f"--from: '{part}' must be task:quality or task:quality:weight, as in smac/3m:good:0.5")
        if match[1] in found:
            raise UserError(f"--from: {match[1]} is named twice")
        found[match[1]] = weight
    given = [weight for weight in found.values() if weight is not None]
    if not given:
        return tuple(found), ()
    rest, left = 1 - sum(given), len(found) - len(given)
    if not all(0 < weight <= 1 for weight in given) or left > 1 or (rest < NEAR if left else abs(rest) > NEAR):
        words = " + ".join("?" if weight is None else f"{weight:g}" for weight in found.values())
        raise UserError(f"--from: the weights {words} must be above 0 and sum to 1; one dataset may go without")
    return tuple(found), tuple(round(rest, 9) if weight is None else weight for weight in found.values())


def _check_name(name: str, task: str) -> None:
    """Raises UserError for a name that a quality cannot have, or that one of another dataset of the task has."""
    from offmarl.datasets.catalogue import ALL_SOURCES, originals

    if not re.fullmatch(WORD, name):
        raise UserError(f"{name}: a quality's name has small letters, digits, - and _, and at most 40 of them")
    if taken := [source for source in ALL_SOURCES if (task, name) in originals(source)]:
        raise UserError(f"{name}: is a quality of {task} already ({taken[0]}); name the new one otherwise")


def _delete(entry: "Entry") -> str:
    return f"delete {entry.card_path()}"
