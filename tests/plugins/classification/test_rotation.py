"""Angles as conditions: turned images, what is seen, and prompts of images without labels."""

import pytest
import torch
from pdiff_plugins.classification.conditions import build_kind
from pdiff_plugins.classification.rotation import principal_axes, turned
from pdiff_plugins.images.data import Split

from pdiff.runtime.errors import PdiffError
from pdiff.task.plugins import load_plugin
from pdiff.testing.evaluating import difference

HOOK = load_plugin("classification").hook
ANGLES = {"type": "rotation", "angles": [-90, 90, 19]}


def images_of(count: int = 12, size: int = 6, channels: int = 2) -> torch.Tensor:
    """Return noise in the shape of images."""
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def split_of(count: int = 40) -> Split:
    """Return images brighter on one side than on the other, normalised with some mean and deviation."""
    images = images_of(count) * torch.linspace(0.1, 1, 6)
    split = Split(images, torch.arange(count) % 4, 4, 6, 8, torch.device("cpu"))
    split.mean, split.std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    return split


@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
def test_quarter_turns_are_exact_and_counter_clockwise(quarters):
    images = images_of()
    found = turned(images, torch.tensor([90.0 * quarters]), torch.zeros(2))
    torch.testing.assert_close(found[0], torch.rot90(images, quarters, (2, 3)), atol=1e-5, rtol=1e-5)


def test_every_angle_turns_all_images_as_it_does_alone():
    images, degrees = images_of(), torch.tensor([10.0, -35.0, 70.0])
    together = turned(images, degrees, torch.ones(2))
    assert together.shape == (3, *images.shape)
    for angle, found in zip(degrees, together, strict=True):
        torch.testing.assert_close(turned(images, angle[None], torch.ones(2))[0], found)


def test_what_comes_in_from_outside_is_black_before_normalisation():
    split, kind = split_of(), build_kind(ANGLES, 0)
    found = kind.images(split, split.pixels(slice(0, 3)), torch.tensor([[0.5**0.5, 0.5**0.5]]), kind.table(split))
    corner = found[0, :, :, 0, 0] * split.std + split.mean
    assert corner.abs().max() < 0.2 * split.images[:3, :, 0, 0].abs().max() + 1e-6


def test_angle_and_condition_stand_for_each_other():
    kind = build_kind(ANGLES, 0)
    table = kind.table(split_of())
    assert (table.names, len(kind), len(table)) == (("sine", "cosine"), 19, 19)
    torch.testing.assert_close(kind.angles(table.values, table), torch.linspace(-90, 90, 19), atol=1e-4, rtol=0)
    torch.testing.assert_close(kind.angles(2 * table.values, table), torch.linspace(-90, 90, 19), atol=1e-4, rtol=0)


def test_angles_in_gaps_and_beyond_are_not_seen_and_every_third_of_them_chooses():
    kind = build_kind({**ANGLES, "gaps": [[-20, 0]], "seen": [-75, 80]}, 0)
    found = {kind.provenance(number)["angle"]: kind.provenance(number)["split"] for number in range(19)}
    away = {angle: split for angle, split in found.items() if split != "seen"}
    assert away == {-90: "unseen", -80: "select", -20: "unseen", -10: "unseen", 0: "select", 90: "unseen"}


def test_a_prompt_tells_angles_apart_without_naming_them():
    settings = {**ANGLES, "type": "rotation_prompt", "images": 30, "scores": 3}
    kind, split = build_kind(settings, 0), split_of()
    table = kind.table(split)
    assert table.names == ("mean", "score0", "score1", "score2")
    assert torch.equal(table.values, build_kind(settings, 0).table(split).values)
    assert not torch.equal(table.values, build_kind(settings, 1).table(split).values)
    torch.testing.assert_close(kind.angles(table.values, table), torch.linspace(-90, 90, 19))
    leading = table.values[:, 1]
    assert (leading[9] - leading[0]).abs() > 3 * (leading[9] - leading[10]).abs()


def test_principal_axes_are_orthonormal_and_lead_by_variance():
    rows = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 2.0, 0.1, 0.2]) + 3
    average, axes = principal_axes(rows, 2)
    torch.testing.assert_close(axes.T @ axes, torch.eye(2), atol=1e-5, rtol=1e-5)
    assert axes.abs().argmax(0).tolist() == [1, 2]
    assert axes.gather(0, axes.abs().argmax(0, keepdim=True)).min() > 0
    torch.testing.assert_close(average, rows.mean(0))


@pytest.fixture
def rotation(subsets) -> dict:
    """The values of a tiny config of angles."""
    subsets["task"]["data"]["noise"] = 0.1
    subsets["task"]["conditions"] = {"type": "rotation", "angles": [-60, 60, 5], "gaps": [[20, 40]]}
    subsets["collect"] = {
        "start": "base",
        "together": 2,
        "train": {"epochs": 2, "batch_size": 16, "lr": 1e-2},
        "networks": {"steps": 6, "batch_size": 32},
    }
    return subsets


def test_networks_of_all_angles_begin_with_one_that_was_trained_on_upright_images(rotation, conditional):
    rotation["collect"]["networks"]["lr"] = 0.0
    case = conditional(rotation)
    snapshots = case.collect()
    assert [bool(snapshot.params) for snapshot in snapshots] == [False] * 2 + [True] * 5
    vectors = case.candidates(snapshots).vectors
    assert torch.equal(vectors, vectors[:1].expand(5, -1))
    assert case.task.model.head.out_features == 10
    assert [snapshot.provenance["split"] for snapshot in snapshots[2:]] == ["seen"] * 3 + ["unseen", "seen"]
    assert list(HOOK.branches(cfg=case.cfg)) == [0, 0, 0]


@pytest.mark.parametrize("inits", [1, 2])
def test_a_collection_from_a_base_goes_on_from_any_state_and_in_parts(rotation, conditional, inits):
    rotation["collect"]["inits"] = inits
    whole = conditional(rotation).collect()
    for place in [place for place, snapshot in enumerate(whole) if snapshot.state]:
        rest = conditional(rotation).collect(whole[place].state)
        assert len(rest) == len(whole) - place - 1
        for one, other in zip(rest, whole[place + 1 :], strict=True):
            assert one.provenance == other.provenance
            assert all(torch.equal(one.params[name], other.params[name]) for name in one.params)
    trained = [snapshot for snapshot in whole if snapshot.params]
    first = conditional(rotation).collect(branch=0)
    second = conditional(rotation).collect(first[-1].state or first[-2].state, branch=1)
    for one, other in zip([s for s in [*first, *second] if s.params], trained, strict=False):
        assert one.provenance == other.provenance
        assert all(torch.equal(one.params[name], other.params[name]) for name in one.params)


def test_a_candidate_is_measured_on_images_turned_by_its_own_angle(rotation, conditional):
    case = conditional(rotation)
    candidates = case.candidates()
    data = case.task.splits["test"]
    for index, result in enumerate(case.evaluate(candidates)):
        candidates.load(case.task.model, index)
        angle = torch.tensor([-60.0 + 30 * index])
        images = data.kind.turn(data.data, data.data.pixels(slice(None)), angle)[0]
        right = case.task.model.eval()(images).argmax(1) == data.data.labels
        assert (result.scores == right).double().mean() > 0.99  # the angle goes through its sine and cosine
        assert result.condition is None
    alone = [case.evaluate(candidates.take([index]))[0] for index in range(5)]
    assert [difference(*pair) for pair in zip(alone, case.evaluate(candidates), strict=True)] == [""] * 5


def test_an_ensemble_is_measured_on_images_turned_by_its_angle(rotation, conditional):
    case = conditional(rotation)
    alone = case.candidates().take([3])
    assert difference(case.ensemble(alone), case.evaluate(alone)[0]) == ""


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"angles": [0, 90]}, r"^task\.conditions\.angles: got \[0, 90\], expected \[first, last, how many\]\.$"),
        ({"angles": 90}, r"^task\.conditions\.angles: got 90, expected \[first, last, how many\]\.$"),
        ({"angles": [0, 90, 0]}, r"^task\.conditions\.angles: got 0, expected an integer from 1 on\.$"),
        ({"angles": [90, 0, 5]}, r"^task\.conditions\.angles: got \[90, 0\], expected two angles, the second above"),
        ({"gaps": [[3]]}, r"^task\.conditions\.gaps: got \[3\], expected two angles, the second above the first\.$"),
        ({"seen": [10, 10]}, r"^task\.conditions\.seen: got \[10, 10\], expected two angles"),
        ({"gap": []}, r"^task\.conditions: got unknown key 'gap'\. Did you mean 'gaps'\?"),
    ],
)
def test_settings_that_make_no_angles_are_refused(settings, line):
    with pytest.raises(PdiffError, match=line):
        build_kind({**ANGLES, **settings}, 0)


def test_a_prompt_of_more_images_than_there_are_is_refused():
    kind = build_kind({**ANGLES, "type": "rotation_prompt", "images": 41}, 0)
    with pytest.raises(PdiffError, match=r"^task\.conditions: got 41, expected at most 40, which the training"):
        kind.table(split_of())
