"""How far long work is, where nobody sees a bar."""

import logging

import pytest

from pdiff.runtime import progress as module
from pdiff.runtime.progress import progress


@pytest.fixture
def told(monkeypatch):
    """Let every step be told."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0)


def work(steps: int = 2) -> None:
    with progress("fit", steps) as advance:
        for _ in range(steps):
            advance()


def test_a_program_with_a_log_finds_the_lines_there(told, caplog, capsys):
    with caplog.at_level(logging.INFO, "pdiff"):
        work()
    assert [record.message.split(",")[0] for record in caplog.records] == ["fit 1/2", "fit 2/2"]
    assert capsys.readouterr().err == ""


def test_a_program_without_a_log_is_told_on_the_error_output(told, monkeypatch, capsys):
    monkeypatch.setattr(module.logger, "hasHandlers", lambda: False)
    work()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == ["fit 1/2", "fit 2/2"]
