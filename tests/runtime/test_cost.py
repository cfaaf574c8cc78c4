"""What a stage costs is measured once."""

import pytest
import torch

from pdiff.runtime.cost import Stopwatch, peak_memory


def test_stopwatch_that_is_stopped_again_says_the_same():
    stopwatch = Stopwatch()
    cost = dict(stopwatch.stop())
    assert sum(range(100_000)) > 0
    assert stopwatch.stop() == cost
    assert 0 <= cost["seconds"] < 60
    assert cost["peak_memory_bytes"] > 1_000_000


def test_a_cpu_run_touches_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("reset_peak_memory_stats", "max_memory_allocated", "max_memory_reserved", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: pytest.fail(f"{name} opens a context"))
    assert {*Stopwatch().stop()} == {"seconds", "peak_memory_bytes"}


def test_memory_of_host_and_gpu_is_told_apart_and_of_the_gpu_of_the_run(monkeypatch):
    gpu, asked = torch.device("cuda", 1), []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: asked.append(device) or 10**15)
    cost = Stopwatch(gpu).stop()
    assert asked == ["empty", gpu, gpu]
    assert cost["peak_gpu_memory_bytes"] == 10**15
    assert cost["peak_memory_bytes"] <= peak_memory() < 10**15
