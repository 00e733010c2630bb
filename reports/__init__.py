"""Tables, figures and statistics: a pure function of the results store.

    form.py        the form of a run's record, which store and reports rely on
    results.py     the store as data frames, one row a run or an evaluation
    published.py   the numbers the papers print, and where they come from
    lint.py        what is wrong with them
    stats.py       means with intervals, aggregates, tests, rank agreement
    tables.py      the long table: ours and the paper's, cell by cell
    aggregates.py  a group's datasets pooled on one scale: rliable's numbers, and aggregate_figures.py draws them
    writers.py     the long table as Markdown, plain text, LaTeX and HTML
    figures.py     learning curves, speed against return
    report.py      all of it, written to <results>/reports/<suite>/
    speed.py       what decisions and updates cost, as tables; speed_figures.py draws them
    studies.py     the papers' other experiments: verdict and page; study_figures.py draws them
    sums.py        whether a run's files are what was written
    site.py        the leaderboard as a folder of pages (site_boards, site_pages, site_charts; templates in site/)

Nothing here imports torch, jax, ray or another part of offmarl: a report needs the store and no more.
"""
