"""The command `offmarl play`: a stored policy plays its task, and its returns are printed."""

import argparse

import numpy as np

from offmarl.experiments.commands.options import METHOD_FILE, declare, examples
from offmarl.experiments.errors import UserError


def play_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.epilog = examples(
        ("play RUN_ID", "ten episodes that no evaluation has played"),
        ("play RUN_ID --episodes 100 --seed 3 --play zero", "a hundred others, without noise"),
        ("play RUN_ID --task my_task.py", "in a task of your own"),
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="the name of its folder in <results>/runs")
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="how many (default: 10)")
    text = "seed of the episodes; the profiles' seeds give the evaluation episodes (default: 1000)"
    parser.add_argument("--seed", type=int, default=1000, help=text)
    parser.add_argument(
        "--play", help="own or zero: with the method's own noise, or none (default: as it was evaluated)"
    )
    declare(parser, *METHOD_FILE, "--task", "--results")
    parser.set_defaults(command=_play)


def _play(args: argparse.Namespace) -> int:
    from offmarl.experiments.grid.suite import LARGEST_SEED
    from offmarl.experiments.store.store import Store
    from offmarl.experiments.training.policy import evaluate_stored, stored_policy

    if not 0 <= args.seed <= LARGEST_SEED:
        raise UserError(f"--seed {args.seed}: write a number from 0 to {LARGEST_SEED:,}")
    method, task = stored_policy(Store(args.results), args.run_id)
    played = evaluate_stored(method, task, args.episodes, args.seed, args.play)
    what = f"{args.episodes} episodes of seed {args.seed}, {method.play} play"
    print(f"{method.title} on {task.name} ({task.simulator.label}), {what}")
    print(f"returns: {', '.join(f'{value:.5g}' for value in played.returns)}")
    won = "" if played.won is None else f", won {np.mean(played.won):.0%}"
    mean, deviation = np.mean(played.returns), np.std(played.returns)
    print(f"mean {mean:.4g}, deviation {deviation:.3g}, length {np.mean(played.lengths):.1f}{won}")
    return 0
