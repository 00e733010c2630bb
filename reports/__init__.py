"""Tables, figures and statistics: a pure function of the results store.

    report.py    what `offmarl report` writes: every table and figure of a suite
    studies.py   the papers' other experiments: verdict, text, table, figure
    card.py      the page of a dataset
    records/     the form of a run on disk, its checksums, and how it is read
    tables/      the long table, its statistics and formats; what decisions and updates cost
    figures/     learning curves, return against time, aggregates, times, studies
    published/   the numbers that the papers print, where they come from, and what is wrong with them
    site/        the leaderboard as a folder of static pages

Nothing here imports torch, jax, ray or another part of offmarl: a report needs the store and no more.
"""
