import re

import numpy as np
import pytest
import torch

from pdiff.engine.intake import check_conditions, check_wanted, fits, on_device
from pdiff.runtime.errors import PdiffError
from pdiff.weights.vectors import Rows


def with_hole(hole):
    conditions = torch.zeros(4, 2)
    conditions[2, 1] = hole
    return conditions


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("conditions", [torch.ones(4, 2), torch.ones(4, 2, dtype=torch.int64), np.ones((4, 2))])
def test_numbers_of_any_type_are_taken(conditions, size):
    found = check_conditions("fit.conditions", conditions, 4, size)
    assert torch.equal(found, torch.ones(4, 2))


@pytest.mark.parametrize(
    ("conditions", "size", "line"),
    [
        ([[0.0, 1.0]], None, "got list, expected (4, C) as a torch tensor or a numpy array."),
        (None, 2, "got NoneType, expected (4, 2) as a torch tensor or a numpy array."),
        (torch.zeros(3, 2), None, "got shape (3, 2), expected (4, C), a row for each vector."),
        (torch.zeros(4), None, "got shape (4,), expected (4, C), a row for each vector."),
        (torch.zeros(4, 0), None, "got shape (4, 0), expected (4, C), a row for each vector."),
        (torch.zeros(4, 3), 2, "got shape (4, 3), expected (4, 2), a row for each vector."),
        (with_hole(float("nan")), 2, "got NaN or infinity in row 2, expected finite numbers. Mend it."),
        (with_hole(float("inf")), None, "got NaN or infinity in row 2, expected finite numbers. Mend it."),
        (np.full((4, 2), 1e300), 2, "got NaN or infinity in row 0, expected finite numbers. Mend it."),
        (torch.zeros(4, 2), 0, "got some, but the engine was fitted without. Leave them out, or fit with them."),
    ],
)
def test_unfit_conditions_are_refused_in_one_line(conditions, size, line):
    with pytest.raises(PdiffError, match=f"^fit.conditions: {re.escape(line)}$"):
        check_conditions("fit.conditions", conditions, 4, size)


LEARNT = "engine.condition_dropout is 0, so that nothing was learnt without conditions. Raise it and fit again."


@pytest.mark.parametrize(
    ("conditions", "size", "guidance", "dropout", "line"),
    [
        (None, 2, 1.5, 0.1, "sample.guidance: got 1.5 without conditions, expected 1. Give conditions."),
        (None, 0, 0, 0.1, "sample.guidance: got 0 without conditions, expected 1. Give conditions."),
        (None, 2, 1, 0.0, f"sample.conditions: got none: {LEARNT}"),
        (torch.zeros(4, 2), 2, 2.0, 0.0, f"sample.guidance: got 2.0, expected 1: {LEARNT}"),
        (torch.zeros(4, 2), 2, -1, 0.1, "sample.guidance: got -1, expected a finite number from 0 on."),
        (torch.zeros(4, 2), 2, "much", 0.1, "sample.guidance: got 'much', expected a finite number from 0 on."),
        (torch.zeros(3, 2), 2, 1, 0.1, "sample.conditions: got shape (3, 2), expected (4, 2), a row for each vector."),
    ],
)
def test_what_the_engine_has_not_learnt_is_not_drawn(conditions, size, guidance, dropout, line):
    with pytest.raises(PdiffError, match=f"^{re.escape(line)}$"):
        check_wanted("sample", conditions, 4, size, guidance, dropout)


def test_without_conditions_nothing_is_wanted():
    assert check_wanted("sample", None, 4, 0, 1.0, 0.0) is None
    assert check_wanted("sample", None, 4, 2, 1, 0.1) is None


@pytest.mark.parametrize("vectors", [torch.ones(4, 8), np.ones((4, 8)), Rows(torch.ones(6, 8), [0, 2, 3, 5])])
def test_a_population_that_would_fill_a_gpu_stays_on_the_host(monkeypatch, vectors):
    gpu = torch.device("cuda", 1)
    free = {"bytes": 2 * 4 * 32 - 1}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["bytes"], 10**9) if device == gpu else None)
    kept = on_device(vectors, gpu)
    assert (kept.device, kept.vectors.device, kept.vectors.dtype) == (gpu, torch.device("cpu"), torch.float32)
    assert kept.shape == (4, 8)
    free["bytes"] += 1
    assert fits(kept, gpu)
    assert fits(torch.empty(10**9, 10**9, device="meta"), torch.device("cpu"))
