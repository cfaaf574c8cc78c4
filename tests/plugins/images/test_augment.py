"""Augmentations of whole batches."""

import pytest
import torch
from pdiff_plugins.images.augment import AUGMENTATIONS, build_augmentations
from torch.nn.functional import interpolate

from pdiff.runtime.errors import PdiffError

EVERY = {
    "flip": {"probability": 0.5},
    "shift": {"share": 0.2},
    "resized_crop": {"size": 12},
    "noise": {"std": 0.5},
}


def augment(images: torch.Tensor, *sections: dict) -> torch.Tensor:
    """Return images after the augmentations of a config."""
    return build_augmentations(sections, "collect.train.augment")(images)


@pytest.fixture(autouse=True)
def seeded():
    """Let every test draw the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture
def images():
    """Return 16 different images."""
    return torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_every_augmentation_is_tested_here():
    assert set(EVERY) == set(AUGMENTATIONS.module_dict)


@pytest.mark.parametrize("name", EVERY)
def test_shape_and_dtype_stay(images, name):
    result = augment(images, {"type": name, **EVERY[name]})
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert result.isfinite().all()


@pytest.mark.parametrize("name", ["flip", "shift", "resized_crop"])
def test_values_stay_in_their_range(images, name):
    result = augment(images, {"type": name, **EVERY[name]})
    assert result.min() >= 0
    assert result.max() <= images.max() + 1e-6


@pytest.mark.parametrize("name", EVERY)
def test_given_images_are_left_as_they_are(images, name):
    before = images.clone()
    augment(images, {"type": name, **EVERY[name]})
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", EVERY)
def test_equal_images_of_a_batch_become_different(images, name):
    result = augment(images[:1].expand(16, -1, -1, -1), {"type": name, **EVERY[name]})
    assert len(result.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_gives_the_same_images_and_another_seed_others(images, name):
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(augment(images, {"type": name, **EVERY[name]}))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", EVERY)
def test_images_need_not_be_square(name):
    result = augment(torch.rand(2, 1, 6, 10), {"type": name, **EVERY[name]})
    assert result.shape == ((2, 1, 12, 12) if name == "resized_crop" else (2, 1, 6, 10))


def test_no_augmentation_is_the_identity(images):
    assert augment(images) is images


def test_augmentations_are_applied_in_order(images):
    crop = {"type": "resized_crop", "size": 5, "scale": [1, 1], "ratio": [1, 1]}
    mirror = {"type": "flip", "probability": 1}
    assert torch.equal(augment(images, crop, mirror), augment(images, crop).flip(3))


@pytest.mark.parametrize(("probability", "mirrored"), [(0, False), (1, True)])
def test_flip_of_a_certain_probability_is_certain(images, probability, mirrored):
    expected = images.flip(3) if mirrored else images
    assert torch.equal(augment(images, {"type": "flip", "probability": probability}), expected)


def test_flip_mirrors_or_leaves_each_image_as_often_as_said():
    images = torch.arange(2.0).expand(4000, 1, 1, 2)
    mirrored = augment(images, {"type": "flip", "probability": 0.3})[:, 0, 0, 0]
    assert mirrored.mean().item() == pytest.approx(0.3, abs=0.03)


def test_shift_by_nothing_is_the_identity(images):
    torch.testing.assert_close(augment(images, {"type": "shift", "share": 0}), images)


def test_shift_moves_a_point_by_at_most_the_share_in_either_direction():
    images = torch.zeros(2000, 1, 21, 21)
    images[:, :, 10, 10] = 1
    shifted = augment(images, {"type": "shift", "share": 0.2})[:, 0]
    torch.testing.assert_close(shifted.sum((1, 2)), torch.ones(2000))
    place = torch.arange(21.0) - 10
    for moved in (shifted.sum(1) @ place, shifted.sum(2) @ place):
        assert moved.abs().max() <= 0.2 * 21 + 1e-3
        assert moved.min() < -0.19 * 21
        assert moved.max() > 0.19 * 21
        assert moved.mean().item() == pytest.approx(0, abs=0.25)


def test_shift_lets_zeros_in():
    shifted = augment(torch.ones(64, 1, 10, 10), {"type": "shift", "share": 0.3})
    assert (shifted == 0).any()
    torch.testing.assert_close(shifted[:, :, 4:6, 4:6], torch.ones(64, 1, 2, 2))


@pytest.mark.parametrize("size", [12, 20, 24])
def test_crop_of_everything_is_a_plain_resize(images, size):
    whole = {"type": "resized_crop", "size": size, "scale": [1, 1], "ratio": [1, 1]}
    torch.testing.assert_close(augment(images, whole), interpolate(images, (size, size), mode="bilinear"))


def crop_of_ramps(scale, ratio) -> tuple[torch.Tensor, torch.Tensor]:
    """Return widths and heights of random crops, as shares of the side, read off images that rise by one a side."""
    ramp = (torch.arange(64.0) + 0.5) / 64
    images = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).expand(500, -1, -1, -1)
    crops = augment(images, {"type": "resized_crop", "size": 33, "scale": scale, "ratio": ratio})
    return tuple((crops[:, i].diff(dim=2 - i).mean((1, 2)) * 33) for i in (0, 1))


def test_crop_has_area_and_ratio_from_the_ranges():
    width, height = crop_of_ramps([0.2, 0.4], [0.75, 4 / 3])
    area, ratio = width * height, width / height
    assert (area > 0.18).all()
    assert (area < 0.42).all()
    assert area.std() > 0.04
    assert (ratio > 0.7).all()
    assert (ratio < 1.4).all()
    assert (ratio > 1).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_crop_whose_box_does_not_fit_is_cut_to_the_image():
    width, height = crop_of_ramps([1, 1], [2, 2])
    torch.testing.assert_close(width, torch.ones(500), atol=0.03, rtol=0)
    torch.testing.assert_close(height, torch.full((500,), 0.5**0.5), atol=0.03, rtol=0)


def test_noise_has_the_stated_size(images):
    added = augment(images, {"type": "noise", "std": 0.5}) - images
    assert added.std().item() == pytest.approx(0.5, rel=0.05)
    assert added.mean().item() == pytest.approx(0, abs=0.03)


def test_unknown_augmentation_is_refused_by_name():
    line = r"^collect\.train\.augment\.type: got 'flop'\. Did you mean 'flip'\? Known: flip, noise, resized_crop, shift"
    with pytest.raises(PdiffError, match=line):
        build_augmentations([{"type": "flop"}], "collect.train.augment")


def test_mistake_in_an_augmentation_is_refused_where_it_stands():
    with pytest.raises(PdiffError, match=r"^collect\.finetune\.augment: got unknown key 'sdt'\. Did you mean 'std'\?"):
        build_augmentations([{"type": "noise", "sdt": 1}], "collect.finetune.augment")
    with pytest.raises(PdiffError, match=r"^collect\.train\.augment: missing a required argument: 'std'"):
        build_augmentations([{"type": "noise"}], "collect.train.augment")
