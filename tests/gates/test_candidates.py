import math

import numpy as np
import pytest

from pdiff.analysis.dead import dead
from pdiff.gates.candidates import check_alive
from pdiff.run.check import Check
from pdiff.task.task import Metric
from pdiff.weights.origin import UNKNOWN

ACCURACY = Metric("accuracy", chance=0.1)
TRAINED = [0.9 + 0.001 * row for row in range(20)]


def record(stage, name, passed=True, **figures):
    return {"stage": stage, "name": name, "passed": passed, "line": "", "figures": figures}


def check(generated, trained, metric, earlier) -> Check:
    """Return the check of candidates by their metrics on `select`."""
    own, reference = ({"select": np.array(metrics, dtype=float)} for metrics in (generated, trained))
    return check_alive(own["select"], reference["select"], dead(own, reference, metric), metric, earlier)


HEALTHY = [record("fit", "decoded", lost=0.0), record("fit", "denoiser"), record("generate", "latents")]


def test_candidates_that_work_pass():
    found = check([0.85] * 19 + [0.1], TRAINED, ACCURACY, HEALTHY)
    assert found.passed
    assert found.figures == {"dead": 1, "share": 0.05, "tail": 0.85, "tail_of_trained": 0.901}


@pytest.mark.parametrize("lost", [0.1, 0.05, 0.18, -math.inf])
def test_a_tenth_of_dead_candidates_fails(lost):
    found = check([0.85] * 18 + [lost] * 2, TRAINED, ACCURACY, HEALTHY)
    assert not found.passed
    assert "got 2 of 20 generated are dead" in found.line
    assert "expected fewer than 10% dead. Decoded checkpoints are alive and latents pass, so the codec" in found.line


def test_without_chance_only_what_is_not_finite_is_dead():
    fid = Metric("fid", higher_is_better=False)
    assert check([20, 500, 20], [20, 21], fid, HEALTHY).figures["dead"] == 0
    assert check([20, math.inf, 20], [20, 21], fid, HEALTHY).figures["dead"] == 1


def test_a_minimised_metric_is_dead_near_its_chance():
    fid = Metric("fid", higher_is_better=False, chance=300)
    assert check([20, 280, 310, 20], [20, 20], fid, HEALTHY).figures["dead"] == 2


def test_the_tail_of_a_minimised_metric_is_its_upper_end():
    fid = Metric("fid", higher_is_better=False, chance=300)
    assert check([20] * 19 + [40], [20, 20], fid, HEALTHY).figures["tail"] == 20
    assert check([20] * 18 + [40, 50], [20, 20], fid, HEALTHY).figures["tail"] == 40


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        ([record("fit", "denoiser", passed=False)], "The check fit/denoiser failed before: mend that first."),
        ([record("fit", "decoded")], "Latents pass, and the codec was not measured on held-out checkpoints: "),
    ],
)
def test_the_cause_follows_from_the_earlier_gates(earlier, words):
    assert check([0.1] * 5, TRAINED, ACCURACY, earlier).line.endswith(words) or words in (
        check([0.1] * 5, TRAINED, ACCURACY, earlier).line
    )


def test_for_files_the_cause_names_no_setting_of_a_collection():
    generated, trained = np.full(5, 0.1), np.array(TRAINED)
    lost = np.ones(5, dtype=bool)
    line = check_alive(generated, trained, lost, ACCURACY, [record("fit", "decoded")], UNKNOWN).line
    assert line.endswith("or say which files are of one training (checkpoints.lineage), and bring more.")
