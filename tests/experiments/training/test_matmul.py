"""The library of matrix products: it is reached, it is exact, and one that rounds is refused."""

import dataclasses

import pytest
import torch

from offmarl.experiments.errors import UserError
from offmarl.experiments.launch.serial import run_serial
from offmarl.experiments.store.store import Store
from offmarl.experiments.training import matmul
from offmarl.experiments.training.machine import Host

needs_onednn = pytest.mark.skipif(
    not matmul.onednn_is_asked() or not matmul.exact("onednn"), reason="no exact oneDNN on this processor"
)


@pytest.fixture(autouse=True)
def afterwards():
    yield
    matmul.use(matmul.MKL)


def rounded(x, bits):
    """x with so many bits of mantissa."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(mantissa * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent)


@pytest.mark.parametrize("bits", [7, 10, 15])  # bfloat16, TF32, and a product that is only a little worse than float32
def test_products_that_round_are_told_by_their_error(bits):
    assert not matmul.within_float32(lambda a, b: torch.bmm(rounded(a, bits), rounded(b, bits)))
    x = torch.randn(99)
    assert torch.equal(rounded(x, 7), x.bfloat16().float())


def test_products_in_another_order_are_float32s():
    def halves(a, b):
        n = a.shape[-1] // 2
        return torch.bmm(a[..., :n], b[:, :n]) + torch.bmm(a[..., n:], b[:, n:])

    assert matmul.within_float32(halves) and matmul.within_float32(torch.bmm)
    assert matmul.within_float32(lambda a, b: (a.double() @ b.double()).float())


@needs_onednn
def test_onednn_multiplies_every_product_of_a_layer_of_several_seeds(capfd):
    x, weight = torch.randn(2, 24, 16, requires_grad=True), torch.randn(2, 16, 8, requires_grad=True)
    Host(matmul="onednn").set_up()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        torch.baddbmm(torch.zeros(2, 1, 8), x, weight).sum().backward()
    assert capfd.readouterr().out.count("exec,cpu,matmul") == 3
    Host().set_up()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        torch.baddbmm(torch.zeros(2, 1, 8), x, weight).sum().backward()
    assert "exec,cpu,matmul" not in capfd.readouterr().out


@needs_onednn
def test_the_library_stands_in_the_record_and_not_in_the_run_id(small, tmp_path):
    job = small("mac_flow", steps=2, flow_steps=2)
    records = {}
    for library in matmul.LIBRARIES:
        assert run_serial([job], tmp_path / library, Host(matmul=library)) == []
        records[library] = [Store(tmp_path / library).read(run_id) for run_id in job.run_ids()]
        assert {record["machine"]["matmul"] for record in records[library]} == {library}
    tensors = [torch.load(tmp_path / each / "runs" / job.run_ids()[0] / "checkpoint.pt") for each in records]
    for one, other in zip(*(state.values() for state in tensors)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_job_fails_with_a_line_where_the_library_rounds(small, tmp_path, monkeypatch):
    monkeypatch.setattr(matmul, "exact", lambda library: False)
    monkeypatch.setattr(matmul, "onednn_is_asked", lambda: True)
    (failure,) = run_serial([small(seeds=(0,), steps=2)], tmp_path, Host(matmul="onednn"))
    assert "or it rounds products; use mkl" in failure
    with pytest.raises(UserError, match="--matmul onednn"):
        matmul.check("onednn")


def test_the_faster_library_is_chosen_if_it_is_exact(monkeypatch):
    def compared(onednn, exact=True, asked=True):
        monkeypatch.setattr(matmul, "onednn_is_asked", lambda: asked)
        monkeypatch.setattr(matmul, "_compare", lambda shape: {"mkl": 1.0, "onednn": onednn})
        monkeypatch.setattr(matmul, "exact", lambda library: exact)
        return matmul.choose([(8, 4, 4)], threads=1)

    assert compared(0.5) == "onednn" and compared(0.95) == "mkl"  # within noise, the usual one
    assert compared(0.5, exact=False) == compared(0.5, asked=False) == "mkl"
    assert matmul.choose([], threads=1) == "mkl"


def test_measuring_leaves_the_process_as_it_was():
    threads = torch.get_num_threads()
    assert matmul.choose([(64, 32, 32), (8, 8, 8)], threads=threads + 1) in matmul.LIBRARIES
    assert torch.get_num_threads() == threads and torch.get_float32_matmul_precision() == "highest"


def test_the_shapes_are_those_of_a_batch(small):
    job = small("bc")
    wide = dataclasses.replace(job, config=dataclasses.replace(job.config, hidden=(32, 24, 8), batch_size=5))
    assert matmul.shapes_of([job, wide]) == [(15, 32, 24)]  # one hidden layer has no product between hidden layers
