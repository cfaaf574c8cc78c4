from types import SimpleNamespace

import pytest
import torch

from pdiff.analysis.kept import kept
from pdiff.gates import codec
from pdiff.gates.codec import check_decoded, check_reconstruction, check_scaling, through_codec
from pdiff.task.task import Evaluation, Metric, Task
from pdiff.weights.layout import Layout
from pdiff.weights.origin import COLLECTED, UNKNOWN
from pdiff.weights.vectors import Rows

LAYOUT = Layout.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
ORIGINALS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
AVERAGE = torch.full((8,), 0.3)


def test_a_checkpoint_that_comes_back_is_kept_and_the_average_keeps_nothing():
    assert kept(ORIGINALS, ORIGINALS, AVERAGE).tolist() == [1] * 5
    assert kept(ORIGINALS, AVERAGE.expand(5, 8), AVERAGE).tolist() == pytest.approx([0] * 5)


def test_half_the_way_to_the_average_keeps_three_quarters():
    assert kept(ORIGINALS, (ORIGINALS + AVERAGE) / 2, AVERAGE).tolist() == pytest.approx([0.75] * 5)


def test_what_never_changes_is_kept_only_if_it_comes_back_exactly():
    same = AVERAGE.expand(2, 8)
    assert kept(same, same, AVERAGE).tolist() == [1, 1]
    assert kept(same, same + 0.1, AVERAGE).tolist() == [0, 0]


FITTED = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
RECORD = "2 of 6 branches are held out, 20 of 60 checkpoints"


def reconstruction(fitted, heldout=None, record=RECORD):
    """Return the check of what a codec makes of both kinds of checkpoints."""
    pair = None if heldout is None else (ORIGINALS, heldout)
    return check_reconstruction((FITTED, fitted), pair, AVERAGE, LAYOUT, "latent", record)


def towards_average(vectors, share):
    return torch.lerp(vectors, AVERAGE.expand_as(vectors), share)


def test_a_codec_that_keeps_checkpoints_passes():
    check = reconstruction(FITTED + 0.01, ORIGINALS + 0.01)
    assert check.passed
    assert min(check.figures["kept"], check.figures["kept_fitted"]) > 0.99


def test_fitted_and_held_out_checkpoints_stand_side_by_side():
    check = reconstruction(towards_average(FITTED, 0.1), towards_average(ORIGINALS, 0.8))
    assert check.passed, "a new branch may move where no other one did"
    assert (check.figures["kept_fitted"], check.figures["kept"]) == (pytest.approx(0.99), pytest.approx(0.36))
    assert (check.figures["gap"], check.figures["heldout"]) == (pytest.approx(0.63), 5)
    assert check.line.endswith(f"99%), and 36% of held-out ones, a gap of 63%; {RECORD}")


def test_held_out_checkpoints_that_come_back_as_the_average_fail():
    check = reconstruction(FITTED, AVERAGE.expand(5, 8))
    assert not check.passed
    assert "got 0% of what sets held-out checkpoints apart from the average through the codec, and 100% of fitted" in (
        check.line
    )
    assert "expected more than 0% of both" in check.line
    assert "collect more, in several branches (collect.branches), or raise engine.autoencoder.latent" in check.line


def test_the_advice_follows_from_where_the_checkpoints_come_from():
    seen, unseen = (FITTED, FITTED), (ORIGINALS, AVERAGE.expand(5, 8))
    checks = [check_reconstruction(seen, unseen, AVERAGE, LAYOUT, "", RECORD, each) for each in (COLLECTED, UNKNOWN)]
    lines = [check.line for check in checks]
    assert ["collect.branches" in line for line in lines] == [True, False]
    assert "say which files are of one training (checkpoints.lineage)" in lines[1]


def test_without_held_out_checkpoints_the_fitted_are_measured_alone():
    check = reconstruction(FITTED, record="none of 9 checkpoints is held out: why.")
    assert check.passed
    assert (check.figures["kept_fitted"], check.figures["kept"], check.figures["gap"]) == (1, None, None)
    assert check.line.endswith("; of held-out ones it is not measured: none of 9 checkpoints is held out: why.")
    assert not reconstruction(towards_average(FITTED, 0.9)).passed


def test_the_tensor_that_suffers_most_is_named():
    decoded = FITTED.clone()
    decoded[:, 6:] = AVERAGE[6:]
    assert reconstruction(decoded, ORIGINALS).figures["worst_tensor"] == "bias"
    decoded[:, :5] = AVERAGE[:5]
    check = reconstruction(decoded, ORIGINALS)
    assert not check.passed
    assert "(least of 'bias', 0%) through the codec, expected at least 70%: it cannot express them." in check.line
    assert "Raise latent." in check.line


def evaluations(metric, count=4, wrong=10):
    signature = torch.arange(100) < wrong
    return [Evaluation(metric, signature) for _ in range(count)]


@pytest.fixture
def task():
    return Task(torch.nn.Linear(1, 1), {}, Metric("accuracy", chance=0.1))


def test_decoded_checkpoints_that_work_pass(task):
    check = check_decoded(evaluations(0.9), evaluations(0.88, wrong=20), evaluations(0.9)[0], task, "latent")
    assert check.passed
    assert check.figures["lost"] == pytest.approx(0.02 / 0.8)
    assert check.figures["similarity"] == 0.5
    assert check.figures["similarity_of_average"] == 1


def test_decoded_checkpoints_that_are_broken_fail(task):
    check = check_decoded(evaluations(0.9), evaluations(0.3), evaluations(0.9)[0], task, "latent")
    assert not check.passed
    assert "got held-out checkpoints with accuracy 0.9000 have 0.3000 after the codec: 75% of its distance from" in (
        check.line
    )
    assert "is lost, expected at most 10%. The codec breaks the network" in check.line


def test_a_tuned_decoder_stands_beside_what_it_was(task):
    average, originals = evaluations(0.9)[0], evaluations(0.93)
    check = check_decoded(originals, evaluations(0.92), average, task, "latent", untuned=evaluations(0.91))
    assert check.passed
    assert (check.figures["untuned"], check.figures["decoded"]) == (pytest.approx(0.91), pytest.approx(0.92))
    words = "accuracy 0.9300 have 0.9100 after the codec, 0.9200 with the decoder tuned"
    assert check.line == f"held-out checkpoints with {words}"
    broken = check_decoded(originals, evaluations(0.3), average, task, "latent", untuned=evaluations(0.91))
    assert not broken.passed, "it is the tuned decoder that is judged"
    assert "Raise latent, lower fit.decoder.lr, or take another engine.scaling." in broken.line


def test_what_a_tuned_decoder_keeps_of_the_weights_is_told_and_not_judged():
    check = check_reconstruction((FITTED, FITTED), None, AVERAGE, LAYOUT, "latent", RECORD, tuned=0.1)
    assert check.passed
    assert check.figures["kept_fitted_tuned"] == 0.1
    assert "kept_fitted_tuned" not in reconstruction(FITTED).figures


@pytest.mark.parametrize(("found", "factor", "passed"), [(None, 0.1, True), ("a[0]", 0.8, True), ("a[0]", 0.1, False)])
def test_coordinates_that_are_lost_beside_a_few_large_ones_fail(found, factor, passed):
    check = check_scaling(FITTED, towards_average(FITTED, 1 - factor), found)
    assert check.passed == passed
    assert check.figures["median_spread"] == pytest.approx(factor)
    assert passed or check.line.endswith("the others are lost. Set engine.scaling.type to per_coordinate.")


@pytest.mark.parametrize(("values", "looked"), [(2**28, 20), (40, 5), (1, 2)])
def test_of_long_vectors_fewer_are_looked_at(monkeypatch, values, looked):
    monkeypatch.setattr(codec, "VALUES", values)
    engine = SimpleNamespace(encode=lambda vectors: vectors, decode=lambda latents, tuned: latents + 1)
    rows = Rows(torch.arange(30.0)[:, None].expand(30, 8), range(30))
    originals, decoded = through_codec(engine, rows)
    assert len(originals) == looked
    assert torch.equal(decoded, originals + 1)
