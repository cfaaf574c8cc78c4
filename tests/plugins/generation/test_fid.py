"""FID and KID to real features, by torchmetrics, whose real statistics stay."""

import math

import pytest
import torch
from pdiff_plugins.generation.fid import Distance, check_counts, unrelated

from pdiff.runtime.errors import PdiffError


def features(count: int = 200, size: int = 4, seed: int = 0) -> torch.Tensor:
    """Return features with correlations."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=rng) @ torch.randn(size, size, generator=rng)


def test_fid_of_the_real_features_themselves_is_nothing():
    real = features()
    fid, _ = Distance(real, 200, 0)(real)
    assert fid == pytest.approx(0, abs=1e-6)


def test_fid_of_moved_features_is_the_square_of_the_distance():
    real = features()
    fid, _ = Distance(real, 200, 0)(real + torch.tensor([3.0, 0, 4.0, 0]))
    assert fid == pytest.approx(25, abs=1e-4)


def test_fid_of_scaled_features_of_one_dimension_is_known():
    real = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    fid, _ = Distance(real, 500, 0)(3 * real)
    mean, std = real.double().mean(), real.double().std()
    assert fid == pytest.approx((4 * mean**2 + 4 * std**2).item(), rel=1e-5)


def test_each_candidate_is_measured_for_itself():
    distance = Distance(features(), 200, 0)
    first = distance(features(seed=1))
    distance(features(seed=2) + 5)
    assert distance(features(seed=1)) == first


def test_distances_are_those_of_torchmetrics_with_a_network():
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, fake = features(), features(seed=1)
    network = torch.nn.Linear(4, 4, bias=False).double()
    network.num_features = 4
    expected = FrechetInceptionDistance(network, normalize=True)
    with torch.no_grad():
        expected.update(real.double(), real=True)
        expected.update(fake.double(), real=False)
        ours, _ = Distance(network(real.double()), 200, 0)(network(fake.double()))
    assert ours == pytest.approx(expected.compute().item(), rel=1e-9)


def test_kid_tells_equal_from_different_distributions_and_leaves_the_random_state():
    real, alike, different = (torch.randn(150, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
    distance = Distance(real, 150, 0)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    kids = [distance(fake)[1] for fake in (alike, different + 2)]
    assert torch.equal(torch.rand(2), expected)
    assert abs(kids[0]) < 0.5 < kids[1]


@pytest.mark.parametrize(("groups", "words"), [(0, "5 for 4 features"), (5, "7 for 4 features and 5 groups")])
def test_too_few_images_for_the_fid_are_refused(groups, words):
    least = int(words[0])
    check_counts("test", least, least, 4, groups)
    line = f"^task.images.test: got {least - 1}, too few for the FID, expected at least {words}. Generate more"
    with pytest.raises(PdiffError, match=line):
        check_counts("test", least, least - 1, 4, groups)
    line = f"^task.data: got {least - 1} real images in the split test, too few for the FID, expected at least {words}"
    with pytest.raises(PdiffError, match=line):
        check_counts("test", least - 1, least, 4, groups)


def test_groups_need_an_image_each():
    with pytest.raises(PdiffError, match=r"^task\.images\.test: got 19, .* expected at least 20 for 4 features and "):
        check_counts("test", 100, 19, 4, 20)


@pytest.mark.parametrize("groups", [2, 7, 20])
@pytest.mark.parametrize("size", [1, 6, 30])
def test_fewest_images_leave_more_than_the_features_without_any_group(groups, size):
    def fits(images: int) -> bool:
        try:
            check_counts("test", images, images, size, groups)
        except PdiffError:
            return False
        return True

    for images in range(1, 100):
        left = images - math.ceil(images / groups)
        assert fits(images) == (images >= groups and left > size)


def test_unrelated_is_the_mean_distance_between_two_different_images():
    assert unrelated(torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])) == pytest.approx(10 / 3)
