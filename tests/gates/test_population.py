import numpy as np
import pytest
import torch

from pdiff.gates.population import (
    check_basin,
    check_copies,
    check_finite,
    check_rank,
    check_runs,
    effective_rank,
    farthest_pair,
    reordered,
    standard_error,
)
from pdiff.task.task import Evaluation, Metric
from pdiff.weights.gram import centred_gram
from pdiff.weights.layout import Layout
from pdiff.weights.origin import FILES, UNKNOWN, origin_of
from pdiff.weights.provenance import runs_of

LAYOUT = Layout.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
STEPS = [{"run": {"seed": 0}, "network": 0, "branch": row // 10, "step": row % 10} for row in range(20)]
ACCURACY = Metric("accuracy", chance=0.1)


def rows(count=20, size=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


def gram(vectors):
    return centred_gram(torch.from_numpy(vectors))


def test_finite_checkpoints_pass():
    check = check_finite(rows(), LAYOUT, STEPS)
    assert check.passed
    assert check.figures == {"checkpoints": 20, "not_finite": 0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_is_named_by_checkpoint_and_tensor(value):
    vectors = rows()
    vectors[13:15, 7] = value
    check = check_finite(vectors, LAYOUT, STEPS)
    assert not check.passed
    assert check.figures == {"checkpoints": 20, "not_finite": 2, "first": 13}
    where = "checkpoint 13 (network 0, branch 1, step 3), 'bias' (2 of 20 checkpoints)"
    assert check.line == (
        f"got NaN or infinity in {where}, expected none. The training diverged: collect at a lower rate."
    )


def test_a_nan_in_a_file_is_named_by_the_file():
    vectors = rows(count=2)
    vectors[1, 0] = np.nan
    line = check_finite(vectors, LAYOUT, [{"file": "a.pth"}, {"file": "b.pth"}]).line
    assert line == "got NaN or infinity in b.pth, 'weight' (1 of 2 checkpoints), expected none. Remove the file."


def test_one_repeated_checkpoint_of_many_passes():
    vectors = rows()
    vectors[1] = vectors[0]
    check = check_copies(vectors, STEPS)
    assert check.passed
    assert check.figures["copies"] == 1


def test_repeated_checkpoints_are_named():
    vectors = rows()
    vectors[1:3] = vectors[0]
    check = check_copies(vectors, STEPS)
    assert not check.passed
    assert "got 2 of 20 checkpoints that repeat another (checkpoint 1 (network 0, branch 0, step 1) is" in check.line
    assert "The selection is not being trained: look at the training's rate and at what it freezes." in check.line


def test_repeated_files_are_named_and_nothing_is_said_of_a_training():
    vectors = rows(count=3)
    vectors[1:3] = vectors[0]
    records = [{"file": f"run{number}/last.pth", "network": number, "lineage": f"run{number}"} for number in range(3)]
    line = check_copies(vectors, records, origin_of(records)).line
    assert "(run1/last.pth (run1) is run0/last.pth (run0))" in line
    assert "Files were given twice, or differ in nothing that is selected: leave the copies out, or select" in line


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_counts_equal_directions(rank):
    axes = np.zeros((2 * rank, 8), np.float32)
    for axis in range(rank):
        axes[2 * axis, axis], axes[2 * axis + 1, axis] = 1, -1
    assert effective_rank(gram(axes)) == pytest.approx(rank)


def test_a_population_in_many_directions_passes():
    check = check_rank(gram(rows()))
    assert check.passed
    assert 5 < check.figures["effective_rank"] < 8


def test_a_population_on_one_line_fails():
    line = np.linspace(0, 1, 20)[:, None] * np.ones(8)
    check = check_rank(gram(line.astype(np.float32)))
    assert not check.passed
    assert "got an effective rank of 1.00, expected at least 1.02: the checkpoints lie on one line" in check.line


def test_a_single_checkpoint_has_no_rank():
    assert effective_rank(gram(rows(count=1))) == 0


def test_the_farthest_pair_is_found():
    vectors = rows()
    vectors[[4, 11]] *= 10
    distances = torch.cdist(torch.tensor(vectors), torch.tensor(vectors))
    assert distances[farthest_pair(gram(vectors))] == distances.max()


@pytest.mark.parametrize("metrics", [[0.8, 0.82, 0.84, 0.82, 0.8], [0.9, 0.85, 0.8, 0.8, 0.85]])
def test_a_metric_that_holds_between_two_checkpoints_is_one_basin(metrics):
    assert check_basin(metrics, ACCURACY, ("a", "b")).passed


@pytest.mark.parametrize(
    ("metrics", "metric", "lost"),
    [
        ([0.9, 0.5, 0.1, 0.5, 0.9], ACCURACY, "100% of its distance from chance (0.1000)"),
        ([0.9, 0.7, 0.6, 0.5, 0.9], Metric("accuracy"), "44% of its value"),
        ([20, 25, 40, 25, 20], Metric("fid", higher_is_better=False), "100% of its value"),
    ],
)
def test_a_metric_that_breaks_down_between_two_checkpoints_names_them(metrics, metric, lost):
    check = check_basin(metrics, metric, ("checkpoint 0", "checkpoint 9"))
    assert not check.passed
    assert "got several basins (checkpoint 0 and checkpoint 9): between the two farthest checkpoints" in check.line
    assert f"{metric.name} loses {lost}, expected at most 20%. These are independently trained networks" in check.line
    assert check.line.endswith("take fine-tunings of one (collect.branches, not collect.seeds).")


@pytest.mark.parametrize(("origin", "asked"), [(FILES, False), (UNKNOWN, True)])
def test_files_of_several_basins_are_not_told_of_a_collection(origin, asked):
    line = check_basin([0.9, 0.5, 0.1, 0.5, 0.9], ACCURACY, ("a.pth", "b.pth"), origin=origin).line
    assert "take the files of one training, or of fine-tunings of one network, alone (checkpoints.files)" in line
    assert ("checkpoints.lineage" in line) == asked
    line = check_basin([0.1] * 5, ACCURACY, ("a.pth", "b.pth"), origin=origin).line
    assert "The files do not fit the task: check that task.data is what they were trained on" in line


def test_files_on_one_line_are_to_be_more():
    line = check_rank(gram(np.linspace(0, 1, 20, dtype=np.float32)[:, None] * np.ones(8, np.float32)), FILES).line
    assert line.endswith("no distribution to learn. Bring more files, of other steps or trainings.")


def test_ends_that_are_no_better_than_chance_are_said_to_be():
    check = check_basin([0.1, 0.1, 0.1, 0.1, 0.1], ACCURACY, ("a", "b"))
    assert not check.passed
    assert "got accuracy 0.1000 and 0.1000 in the two farthest" in check.line
    assert "expected clearly better than chance (0.1000). The training failed: train longer" in check.line
    assert "several basins" not in check_basin([0.11, 0.1, 0.05, 0.1, 0.11], ACCURACY, ("a", "b"), 0.04).line


def test_the_standard_error_is_that_of_the_scores():
    scores = torch.arange(100) < 20
    assert standard_error(Evaluation(0.2, scores, scores)) == pytest.approx(0.04, rel=0.01)
    assert standard_error(Evaluation(0.2, scores)) == 0
    assert standard_error(Evaluation(0.2, scores, scores[:1])) == 0, "of a single sample it is not known"


def test_trainings_that_overlap_pass():
    check = check_runs(gram(rows()), runs_of(STEPS))
    assert check.passed
    assert check.figures["between"] + check.figures["within"] == pytest.approx(1)


def test_trainings_that_are_far_apart_fail():
    vectors = rows()
    vectors[10:] += 100
    check = check_runs(gram(vectors), runs_of(STEPS))
    assert not check.passed
    assert "of the variance between the 2 trainings, expected at most 95%: the population is a few points" in check.line


@pytest.mark.parametrize(
    ("runs", "reason"), [([range(20)], "of one training"), ([[row] for row in range(20)], "of another training")]
)
def test_runs_that_cannot_be_told_apart_are_not_measured(runs, reason):
    check = check_runs(gram(rows()), runs)
    assert check.passed
    assert reason in check.line


def test_an_unknown_lineage_is_said_to_be_unknown():
    runs = runs_of([{"file": f"{row}.pth"} for row in range(20)])
    assert check_runs(gram(rows()), runs, UNKNOWN).line == (
        "not measured: they count as of one training, since their lineage is unknown (checkpoints.lineage)."
    )


def permuted(vectors, order):
    """Return vectors whose tensor `weight` `(2, 3)` has its columns in another order."""
    found = vectors.copy()
    found[:, :6] = vectors[:, :6].reshape(-1, 2, 3)[:, :, order].reshape(-1, 6)
    return found


def test_the_order_of_units_leaves_the_values_of_each_tensor():
    vectors = rows(count=6)
    vectors[4] = permuted(vectors[1:2], [2, 0, 1])
    vectors[5] = vectors[2]
    assert reordered(torch.from_numpy(vectors), LAYOUT) == [(4, 1)], "the last one is a copy, in the same order"
    vectors[4, [0, 7]] = vectors[4, [7, 0]]
    assert reordered(torch.from_numpy(vectors), LAYOUT) == [], "a value moved to another tensor"


@pytest.mark.parametrize(
    ("lineages", "scattered", "words"),
    [
        (1, True, "not a distribution. Fine-tune one network, longer"),
        (2, True, "not a distribution. Bring their units into one order (fit.canonical=permutation, with ReLU"),
        (2, False, "not a distribution. Bring 20 independent networks or more, or fine-tune one network, longer"),
    ],
)
def test_trainings_that_are_far_apart_are_told_what_to_do(lineages, scattered, words):
    vectors = rows()
    vectors[10:] += 100
    assert words in check_runs(gram(vectors), runs_of(STEPS), lineages=lineages, scattered=scattered).line


def test_of_many_lineages_each_is_a_point_of_a_distribution():
    vectors = rows()
    vectors[10:] += 100
    check = check_runs(gram(vectors), runs_of(STEPS), lineages=20)
    assert check.passed
    assert check.line.endswith("20 lineages are points of a distribution of their own")
