"""Whether each measure orders its dial of `games/dial`, and stays put when another dial moves.

    .venv/bin/python tests/tools/calibrate.py --seeds 2        # 60 datasets; prints a table in Markdown

For each dial: the rank correlation of its own measure with it, and the range of every measure while it moves, in shares
of the range that the measure has on its own dial. Coverage is the agents' own, which bystanders do not change.
"""

import argparse

import numpy as np
import torch
from dial import Dial
from scipy.stats import spearmanr

from offmarl.datasets.measures.measure import measure

DIALS = {
    "coupling": (0.0, 0.2, 0.4, 0.7, 1.0, 1.4),
    "conventions": (1, 2, 3, 4, 5, 1),
    "memory": (0.0, 0.2, 0.4, 0.6, 0.8, 0.95),
    "places": (1, 2, 4, 8, 16, 32),
    "agents": (2, 3, 4, 5, 6, 8),
}
MEASURES = {
    "coupling": lambda found: found["coordination"]["nats"],
    "conventions": lambda found: found["conventions"]["number"],
    "memory": lambda found: found["memory"]["nats"],
    "places": lambda found: found["coverage"]["oaco"],
}


def calibrate(seeds: int, dials: list[str]) -> list[str]:
    """Measure the family; the lines of a table."""
    found = {}
    for dial in dials:
        for seed in range(seeds):
            for value in DIALS[dial]:
                measured = measure(Dial(**{dial: value}, seed=seed).dataset())
                row = {name: read(measured) for name, read in MEASURES.items()}
                found.setdefault(dial, []).append((value, row))
                print(dial, value, seed, {k: round(float(v), 3) for k, v in row.items()}, measured["cpu_seconds"])
    ranges = {dial: {m: np.ptp([row[m] for _, row in rows]) for m in MEASURES} for dial, rows in found.items()}
    lines = ["| dial | rank correlation | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 2) + "|"]
    for dial, rows in found.items():
        own = spearmanr([v for v, _ in rows], [row[dial] for _, row in rows])[0] if dial in MEASURES else None
        shares = [ranges[dial][m] / ranges[m][m] if m in ranges else np.nan for m in MEASURES]
        lines.append(
            f"| {dial} | {'' if own is None else f'{own:.2f}'} | " + " | ".join(f"{s:.2f}" for s in shares) + " |"
        )
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--dials", default=",".join(DIALS))
    chosen = options.parse_args()
    print("\n".join(calibrate(chosen.seeds, chosen.dials.split(","))))
