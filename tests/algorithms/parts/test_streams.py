"""Random numbers of the seeds."""

import pytest
import torch

from offmarl.algorithms.parts.streams import LaneStreams, SeedStreams

SEEDS = (3, 5)


def test_streams_depend_on_seed_and_purpose_alone():
    def draws(seeds, purpose):
        streams = SeedStreams(seeds, purpose)
        return torch.cat([streams.normal(4), streams.uniform(4), streams.integers(1000, 4)], 1)

    together = draws([0, 1, 7], "training")
    assert torch.equal(together, draws([0, 1, 7], "training"))
    assert torch.equal(together[2:], draws([7], "training"))
    assert len({tuple(row.tolist()) for row in [*together, *draws([0, 1, 7], "acting")]}) == 6


def test_initialisation_training_and_acting_draw_apart(build):
    one, other = build(), build()
    draws = [one.streams.normal(4), one.acting.normal(4), other.init_streams.normal(4)]
    fresh = SeedStreams(SEEDS, "initialisation").normal(4)
    assert len({tuple(row.tolist()) for each in [*draws, fresh] for row in each}) == 8


def test_streams_draw_what_they_say():
    streams = SeedStreams([0, 1], "test")
    uniform, integers = streams.uniform(4000), streams.integers(3, 4000)
    assert uniform.min() >= 0 and uniform.max() < 1 and (uniform.mean(1) - 0.5).abs().max() < 0.02
    for k in range(3):
        assert ((integers == k).float().mean(1) - 1 / 3).abs().max() < 0.03
    assert integers.min() == 0 and integers.max() == 2


def test_streams_continue_where_they_stood(through_disk):
    streams, later = SeedStreams([0, 1], "test"), SeedStreams([5, 6], "other")
    streams.normal(3)
    later.load_state_dict(through_disk(streams.state_dict()))
    assert torch.equal(streams.normal(5), later.normal(5))
    with pytest.raises(ValueError):
        later.load_state_dict(SeedStreams([0], "test").state_dict())


def test_some_lanes_draw_what_they_would_among_all():
    lanes, rows = torch.tensor([[1, 4, 5], [0, 2, 3]]), torch.arange(2)[:, None]
    for kind in ("normal", "uniform", "gumbel"):
        every, some = SeedStreams([3, 5], "acting"), LaneStreams(SeedStreams([3, 5], "acting"), lanes, 6)
        assert torch.equal(getattr(some, kind)(3, 2), getattr(every, kind)(6, 2)[rows, lanes])
        pairs = getattr(every, kind)(6 * 4).unflatten(1, (6, 4))[rows, lanes].flatten(1)  # four rows for each lane
        assert torch.equal(getattr(some, kind)(3 * 4), pairs)
        assert torch.equal(getattr(some, kind)(2), getattr(every, kind)(2))  # not of lanes
