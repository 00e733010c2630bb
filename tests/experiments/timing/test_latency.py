import dataclasses
import io
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from offmarl.algorithms.parts.diffusion import cosine, ddpm
from offmarl.algorithms.parts.streams import SeedStreams
from offmarl.benchmarks.latency import Timing
from offmarl.experiments.cli import main, parser
from offmarl.experiments.commands.timing import _selected
from offmarl.experiments.grid import jobs as grid
from offmarl.experiments.grid.code import why_stale
from offmarl.experiments.grid.estimate import duration
from offmarl.experiments.grid.suite import load_suite
from offmarl.experiments.processes import Killed
from offmarl.experiments.store.store import Store
from offmarl.experiments.timing import latency, scaling
from offmarl.experiments.timing.isolated import isolated
from offmarl.experiments.training.machine import Host
from offmarl.experiments.training.method import build
from offmarl.reports.tables import speed

CPU = Host()
SMOKE = ["--suite", "continuous", "--profile", "smoke", "--tasks", "mpe/spread"]


def jobs(algorithms, profile="smoke"):
    return grid.jobs(grid.Request("smac", profile, algorithms=algorithms, tasks=["smac/3m"], seeds=[0]))


def row_of(job):
    return latency.Row(job, "native", CPU)


@pytest.fixture
def sights():
    g = np.random.default_rng(0)
    moments = [(g.random((3, 30), np.float32), np.ones((3, 9), bool)) for _ in range(4)]
    return latency.Observed(moments, 2.0)


# What is measured


def test_every_method_is_measured_once_a_task_and_by_ddim_where_its_own_sampler_takes_every_step():
    rows = latency.rows_of(jobs(["bc", "diffusion_bc"], "paper"), [CPU, Host(threads=2)])
    assert [(row.job.algorithm, row.sampler, row.host.threads, row.captured) for row in rows] == [
        ("bc", "native", 1, False),
        ("bc", "native", 2, False),
        ("diffusion_bc", "native", 1, False),
        ("diffusion_bc", "native", 2, False),
        ("diffusion_bc", "ddim-15", 1, False),
        ("diffusion_bc", "ddim-15", 2, False),
    ]


def test_on_cuda_every_row_is_measured_eager_and_captured():
    assert [row.sampler for row in latency.rows_of(jobs(["dof"], "quick"), [CPU])] == [
        "native"
    ]  # DDIM is its own there
    rows = latency.rows_of(jobs(["bc", "mac_flow"]), [Host("cuda")])
    assert [(row.job.algorithm, row.captured) for row in rows] == [
        ("bc", False),
        ("bc", True),
        ("mac_flow", False),
        ("mac_flow", True),
    ]


@pytest.mark.parametrize(("task", "sees", "acts"), [("smac/3m", (3, 30), (3, 9)), ("mpe/spread", (3, 18), None)])
def test_what_a_task_shows_is_legal_play_in_its_simulator(task, sees, acts):
    moments, step_ms = latency.observe(task, 5)
    assert [obs.shape for obs, _ in moments] == [sees] * 5 and step_ms > 0
    assert all(
        (legal is None) if acts is None else (legal.shape == acts and legal.any(-1).all()) for _, legal in moments
    )
    assert not np.array_equal(moments[0][0], moments[-1][0])


def test_a_decision_costs_what_one_host_one_agent_and_all_agents_take(sights):
    job = jobs(["mac_flow"])[0]
    row = latency.measure(row_of(job), latency.Plan(0.05, 8), sights, None)
    assert row["sum_ms"] > row["agent"]["median_ms"] == row["headline_ms"] > 0
    assert row["agent"]["n"] >= 9  # of all three agents
    assert row["joint"]["n"] >= 3 and row["extrapolated"] is None and row["weights"] == "fresh"
    assert row["facts"]["nfe"] == 1 and row["facts"]["reduced"] and row["step_ms"] == 2.0


@pytest.mark.parametrize(("shared", "counts"), [(True, 2.0), (False, 7.0)])
def test_agents_of_one_network_share_a_time_and_of_several_the_slowest_counts(sights, monkeypatch, shared, counts):
    config = {"share_parameters": shared}
    job = dataclasses.replace(jobs(["bc"])[0], config=dataclasses.replace(jobs(["bc"])[0].config, **config))
    of_agents = iter([Timing(ms, 10 * ms, ms / 2, 5, 1.0) for ms in (2.0, 7.0, 1.0)])
    monkeypatch.setattr(latency, "time_method", lambda *_: (next(of_agents), None))
    joint, method = Timing(9.0, 9.0, 9.0, 3, 1.0), build(job, [0], "cpu")
    costs = latency.agents_costs(method, joint, row_of(job), latency.Plan(0.1, 8), sights.moments)
    assert costs["headline_ms"] == costs["agent"]["median_ms"] == counts
    assert costs["agent"]["p95_ms"] == 10 * counts and costs["sum_ms"] == 10
    assert costs["agent"]["n"] == (15 if shared else 5)


def test_a_step_of_the_environment_is_of_one_battle(monkeypatch):
    from offmarl.benchmarks.smax.env import SmaxEnv

    stepped, step = [], SmaxEnv.step

    def counted(env, actions):
        stepped.extend(len(battle[0]) for battle in env._battles)
        return step(env, actions)

    monkeypatch.setattr(SmaxEnv, "step", counted)
    latency.observe("smac/3m", 3)
    assert stepped and set(stepped) == {1}


@pytest.mark.parametrize("name", ["mac_flow", "flow_bc", "om2p"])
def test_every_timed_decision_draws_its_noise_whatever_plays_a_suite_evaluates(sights, monkeypatch, name):
    suite, task = ("om2p", "mpe/tag") if name == "om2p" else ("smac", "smac/3m")
    job = grid.jobs(grid.Request(suite, "smoke", algorithms=[name], tasks=[task], seeds=[0]))[0]
    method = build(job, [0], "cpu")
    moments = [(obs[:, : method.spec.obs], None if name == "om2p" else legal) for obs, legal in sights.moments]
    drawn, normal = [], SeedStreams.normal
    monkeypatch.setattr(SeedStreams, "normal", lambda *args: drawn.append(1) or normal(*args))
    timing, _ = latency.time_method(method, row_of(job), latency.Plan(0.01, 8), moments)
    assert len(drawn) >= timing.n


def test_a_centralised_method_has_no_agent_of_its_own(sights):
    job = jobs(["madiff_c"])[0]
    row = latency.measure(row_of(job), latency.Plan(0.01, 8), sights, None)
    assert row["agent"] is None and row["sum_ms"] is None
    assert row["headline_ms"] == row["joint"]["median_ms"]


def test_networks_of_a_finished_run_are_timed_where_there_is_one(sights, tmp_path):
    grid_, store = jobs(["bc"]), Store(tmp_path)
    assert latency.checkpoint(grid_[0], grid_, store) is None
    trained = grid_[1]  # on other data of the task
    torch.save(build(trained, [0], "cpu").seed_state(0), weights := io.BytesIO())
    record = {"run_id": trained.run_ids()[0], "status": "done"}
    place = store.write(trained.cells()[0], record, checkpoint=weights.getvalue())
    found = latency.checkpoint(grid_[0], grid_, store)
    assert found == place / "checkpoint.pt"
    measured = latency.measure(row_of(grid_[0]), latency.Plan(0.01, 8), sights, found)
    assert measured["weights"] == trained.run_ids()[0] and why_stale(measured) is None
    assert why_stale(measured | {"code_sums": {"method": "0"}}) is not None
    store.write(trained.cells()[0], record | {"code_sums": {"method": "0"}}, checkpoint=weights.getvalue())
    assert latency.checkpoint(grid_[0], grid_, store) is None  # of other code


# Long chains


class Slow:
    """A decision takes three milliseconds, and two for each step of its chain, by a clock of its own."""

    execution = "decentralised"

    def __init__(self, steps, clock):
        self.chain, self.clock = ddpm(cosine(steps)), clock

    def act(self, obs, legal=None, memory=None):
        self.clock[0] += 3_000_000 + 2_000_000 * len(self.chain.time)
        return obs[..., 0], memory


@pytest.fixture
def clock(monkeypatch):
    now = [0]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0] / 1e9)
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 1e9)
    return now


def test_a_chain_too_slow_for_its_seconds_is_continued_from_its_first_calls(sights, clock):
    method = Slow(200, clock)
    timing, cut = latency.time_method(method, row_of(None), latency.Plan(1.0, 8), sights.moments)
    assert cut == {"calls": 8, "of": 200}
    assert timing.median_ms == pytest.approx(403) and timing.p95_ms == pytest.approx(403)
    assert len(method.chain.time) == 200  # put back


class Interrupted(Slow):
    """The machine does something else while the first, shortest chains are timed."""

    def act(self, obs, legal=None, memory=None):
        acted = super().act(obs, legal, memory)
        self.clock[0] += 30_000_000 * (len(self.chain.time) == 2)
        return acted


def test_a_chain_is_never_continued_by_a_negative_time(sights, clock):
    timing, cut = latency.time_method(Interrupted(200, clock), row_of(None), latency.Plan(1.0, 8), sights.moments)
    assert cut == {"calls": 8, "of": 200}
    assert timing.median_ms == pytest.approx(19 / 8 * 200)  # eight calls take 19 ms, all shared out
    assert 0 < timing.min_ms <= timing.median_ms <= timing.p95_ms


def test_a_chain_that_fits_is_timed_whole(sights, clock):
    timing, cut = latency.time_method(Slow(20, clock), row_of(None), latency.Plan(1.0, 8), sights.moments)
    assert cut is None and timing.median_ms == pytest.approx(43)


def test_ratios_are_of_headlines_and_with_the_environments_step_in_both():
    def row(algorithm, task, ms, step):
        place = {"task": task, "mode": "eager", "machine": {"threads": 1}, "sampler": "native"}
        return {**place, "algorithm": algorithm, "headline_ms": ms, "step_ms": step}

    rows = [
        row("fast", "a", 1.0, 3.0),
        row("slow", "a", 9.0, 3.0),
        row("fast", "b", 2.0, 0.0),
        row("slow", "b", 8.0, 0.0),
    ]
    (found,) = latency.ratios(rows, "fast")
    assert found["algorithm"] == "slow" and found["tasks"] == 2
    assert found["ratio"] == pytest.approx((9 + 4) / 2)
    assert found["ratio_with_step"] == pytest.approx((12 / 4 + 8 / 2) / 2)
    assert latency.ratios(rows, "absent") == []


# Growth with the team


def test_a_power_law_is_found_again():
    sizes = [2, 4, 8, 16]
    assert scaling.exponent(sizes, [0.3 * s**1.7 for s in sizes]) == pytest.approx(1.7)
    assert np.isnan(scaling.exponent([2], [1.0]))


def test_growth_is_measured_team_by_team_until_the_limit(monkeypatch):
    monkeypatch.setattr(scaling, "AGENTS", (2, 4, 8))
    monkeypatch.setattr(scaling, "CALLS", (1, 3))
    taken = []

    def measured(algorithm, agents, calls, host, seconds):
        taken.append((agents, calls))
        return {"agents": agents, "calls": calls, "nfe": calls, "total_ms": 100.0 * agents, "agent_ms": 50.0}

    monkeypatch.setattr(scaling, "measure_team", measured)
    row = scaling.measure_growth("diffusion_bc", CPU, 0.01, limit=1.5)
    assert taken == [(2, 1), (4, 1), (2, 1), (2, 3)]  # eight might take 5 x 0.4 seconds
    assert row["left_out"] == [8]


@pytest.mark.parametrize(("algorithm", "calls", "nfe"), [("bc", 2, 1), ("diffusion_bc", 2, 2), ("om2p", 2, 1)])
def test_a_synthetic_team_decides_with_so_many_calls(algorithm, calls, nfe):
    point = scaling.measure_team(algorithm, 2, calls, CPU, 0.01)
    assert (point["agents"], point["calls"], point["nfe"]) == (2, calls, nfe)
    assert point["total_ms"] > 0 and point["agent_ms"] > 0


# Processes of their own


def test_a_process_that_is_killed_is_an_error_with_a_reason():
    assert isolated(os.getpid) != os.getpid()
    with pytest.raises(Killed, match="out of memory"):
        isolated(os._exit, 9)


def test_peak_memory_is_the_most_that_was_held():
    before = CPU.peak_mb()
    np.ones(int(before + 50) * 2**17)  # more than all that was held, and let go at once
    assert before + 40 < CPU.peak_mb() < 3 * before + 100


# The command line


def test_latency_writes_its_rows_into_the_store_and_ends_in_one_line_of_json(tmp_path, capsys):
    options = ["--algorithms", "bc,diffusion_bc", "--seconds", "0.05", "--threads", "1", "--results", str(tmp_path)]
    assert main(["latency", *SMOKE, *options]) == 0
    said = capsys.readouterr()
    last = json.loads(said.out.splitlines()[-1])
    assert [(row["algorithm"], row["sampler"]) for row in last["rows"]] == [
        ("bc", "native"),
        ("diffusion_bc", "native"),
        ("diffusion_bc", "ddim-15"),
    ]
    stored = [json.loads(path.read_text()) for path in (tmp_path / "measurements" / "latency").glob("*.json")]
    assert {row["finished"] for row in stored} == {row["finished"] for row in last["rows"]}
    assert all(row["machine"]["device"] and row["code"]["version"] and row["peak_mb"] > 0 for row in stored)
    assert "joint ms" in said.out and "without" in said.out.lower()
    assert main(["latency", *SMOKE, *options, "--algorithms", "bc", "--set", "bc.hidden=[8]"]) == 0
    capsys.readouterr()
    rows = speed.inference(tmp_path, load_suite("continuous").model_dump())
    assert {row["setting"] for row in rows} == {"", "hidden=[8]"} and len(rows) == 2
    assert all(not row["setting"] for row in speed.latest(rows))


@pytest.mark.parametrize(("tasks", "count"), [((), 2), (("--tasks", "all"), 8), (("--tasks", "smac/8m"), 1)])
def test_a_suite_is_measured_on_the_first_task_of_each_group_or_on_all(tasks, count):
    words = ["latency", "--suite", "smac", "--algorithms", "bc", *tasks]
    ((_, asked),) = _selected(parser(words).parse_args(words))
    assert len({job.task for job in asked}) == count


def test_a_board_is_measured_where_its_parts_have_the_tasks_and_methods():
    words = ["bench", "train", "--suite", "frontier", "--tasks", "smac/3m:poor,mpe/spread", "--algorithms", "bc,b3c"]
    found = _selected(parser(words).parse_args(words))
    asked = {request.suite: {(job.task, job.algorithm) for job in jobs} for request, jobs in found}
    spread = {("mpe/spread", "bc"), ("mpe/spread", "b3c")}
    assert asked == {"frontier_smac": {("smac/3m", "bc")}, "frontier_continuous": spread}


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(monkeypatch, tmp_path, capsys):
    def gone(function, *args):
        if function is latency.observe:
            return SimpleNamespace(moments=[], step_ms=1.0)
        raise Killed("its process was killed (out of memory?)")

    monkeypatch.setattr(latency, "isolated", gone)
    assert main(["latency", *SMOKE, "--algorithms", "bc", "--threads", "1", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "mpe/spread bc" in said.err and "out of memory" in said.err
    assert json.loads(said.out.splitlines()[-1])["failures"]


def test_bench_train_prints_seed_steps_a_second_and_the_hours_of_the_table(tmp_path, capsys):
    options = ["--algorithms", "bc", "--seeds", "1,2", "--seconds", "0.05", "--results", str(tmp_path)]
    assert main(["bench", "train", *SMOKE, *options]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith("mpe/spread")]
    assert [(row[1], row[2], row[3]) for row in rows] == [("bc", "1", "eager"), ("bc", "2", "eager")]
    assert rows[0][6] == "1.00x"
    assert "updates only, one job at a time" in out
    assert len(list((tmp_path / "measurements" / "training").glob("*.json"))) == 2
    assert main(["bench", "train", *SMOKE, *options, "--set", "all.batch_size=4"]) == 0
    assert "not measured" in capsys.readouterr().out  # the whole suite, of whose settings nothing was
    stored = [json.loads(path.read_text()) for path in (tmp_path / "measurements" / "training").glob("*.json")]
    assert sorted(str(row["changed"]) for row in stored) == [*["{'batch_size': 4}"] * 2, *["{}"] * 2]


BAD = {
    "suite": (["latency", "--suite", "smax"], "smac"),
    "algorithm": (["latency", "--suite", "smac", "--algorithms", "mac_flaw"], "mac_flow"),
    "another space": (["latency", "--suite", "smac", "--algorithms", "b3c"], "act in none of these tasks"),
    "task": (["bench", "train", "--suite", "smac", "--tasks", "smac/4m"], "smac/3m"),
    "seconds": (["latency", "--suite", "smac", "--seconds", "0"], "above 0"),
    "calls": (["latency", "--suite", "smac", "--calls", "1"], "at least 2"),
    "nothing to scale": (["latency", "--suite", "om2p", "--scaling"], "--algorithms"),
    "threads": (["latency", "--suite", "smac", "--threads", "many"], "1,all"),
    "no seeds": (["bench", "train", "--suite", "smac", "--seeds", "0,1"], "at least 1"),
    "device": (["bench", "train", "--suite", "smac", "--device", "gpu"], "cpu, cuda or auto"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_two(name, capsys, tmp_path):
    argv, words = BAD[name]
    assert main([*argv, "--results", str(tmp_path / "results")]) == 2
    said = capsys.readouterr()
    assert words in said.err and len(said.err.splitlines()) == 1 and not said.out


# The whole table


def test_hours_of_a_table_take_the_measured_task_of_a_group_for_the_others():
    whole = grid.jobs(grid.Request("smac", "paper", algorithms=["bc"]))
    groups = load_suite("smac").groups

    def record(task, seeds, ms):
        return {"task": task, "algorithm": "bc", "changed": {}, "seeds": seeds, "update_ms": ms, "mode": "eager"}

    from offmarl.experiments.timing.throughput import projected

    records = [record("smac/3m", 1, 9.0), record("smac/3m", 6, 36.0), record("smacv2/terran_5_vs_5", 1, 7.2)]
    lines = projected(whole, records, groups)
    hours = 15 * 1e6 * 36e-3 / 3600 + 3 * 6 * 1e6 * 7.2e-3 / 3600  # six seeds together, and one after the other
    assert duration(3600 * hours) in lines[0] and duration(3600 * hours) in lines[-1] and "h" in lines[0]
    assert "~" not in lines[0]
    rough = projected(whole, records[:1], groups)[0]
    assert f"~{duration(18 * 6 * 1e6 * 9e-3)}" in rough
    assert "not measured" in projected(whole, [], groups)[0]


def test_settings_side_by_side_are_rows_of_their_own():
    from offmarl.experiments.timing.throughput import rows_of

    request = grid.Request("om2p", "paper", algorithms=["ma_fql", "om2p"], tasks=["mpe/tag"], seeds=[0])
    rows = rows_of(grid.jobs(request), [1, 2], [CPU], load_suite("om2p").bench)
    assert [(row.job.algorithm, row.changed.get("derivative"), len(row.job.seeds)) for row in rows] == [
        ("ma_fql", None, 1),
        ("ma_fql", None, 2),
        *(("om2p", derivative, seeds) for derivative in ("fd", "jvp", "jacobian") for seeds in (1, 2)),
    ]
    assert all(getattr(row.job.config, "derivative", None) == row.changed.get("derivative") for row in rows)
    assert dataclasses.asdict(rows[0].host) == dataclasses.asdict(CPU)
