"""The jackknife of the FID: right where the truth is known, and the same FID as torchmetrics'."""

import pytest
import torch
from pdiff_plugins.generation.fid import Distance
from pdiff_plugins.generation.jackknife import Jackknife, moments

from pdiff import generator

GROUPS = 20


def features(count: int, size: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return correlated features `(count, size)`."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=rng, dtype=dtype) @ torch.randn(size, size, generator=rng, dtype=dtype)


def draws(repeats: int, size: int, images: int, real: int, shift: float = 0.5, scale: float = 1.5):
    """Return plain FIDs `(repeats,)`, pseudo-values `(repeats, G)` and the true FID between two Gaussians."""
    rng = torch.Generator().manual_seed(0)
    plain, pseudo = [], []
    for _ in range(repeats):
        jackknife = Jackknife(torch.randn(real, size, generator=rng), GROUPS, 0)
        made = shift + scale * torch.randn(images, size, generator=rng)
        plain.append(jackknife.fids(made)[0])
        pseudo.append(jackknife(made))
    return torch.stack(plain), torch.stack(pseudo), size * (shift**2 + (scale - 1) ** 2)


def test_moments_are_those_of_all_and_of_what_is_left_without_each_group():
    values = features(23, dtype=torch.float64)
    means, covariances = moments(values, 5)
    parts = values.tensor_split(5)
    left = [values] + [torch.cat([*parts[:g], *parts[g + 1 :]]) for g in range(5)]
    torch.testing.assert_close(means, torch.stack([part.mean(0) for part in left]))
    torch.testing.assert_close(covariances, torch.stack([part.T.cov() for part in left]))


def test_fids_are_those_of_torchmetrics_on_all_images_and_on_what_is_left_without_a_group():
    real, made = features(100), features(80, seed=1)
    real[:, 0] = made[:, 0] = 3.0  # a feature that never changes
    fids = Jackknife(real, GROUPS, 7).fids(made)
    assert fids.shape == (GROUPS + 1,)
    shuffled = real[torch.randperm(100, generator=generator(7, "groups"))]
    left = [(real, made), (shuffled[5:], made[4:]), (shuffled[:-5], made[:-4])]
    expected = [Distance(some, 50, 0)(others)[0] for some, others in left]
    assert fids[[0, 1, -1]].tolist() == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_pseudo_values_are_what_each_group_adds():
    jackknife, made = Jackknife(features(100), GROUPS, 0), features(80, seed=1)
    fids = jackknife.fids(made)
    torch.testing.assert_close(jackknife(made), GROUPS * fids[0] - (GROUPS - 1) * fids[1:])


@pytest.mark.parametrize(("size", "images", "real"), [(4, 40, 60), (8, 60, 120), (32, 100, 297)])
def test_bias_of_few_images_is_gone(size, images, real):
    plain, pseudo, truth = draws(60, size, images, real)
    error = (plain.std() / 60**0.5).item()
    assert plain.mean().item() - truth > 5 * error
    assert abs(pseudo.mean().item() - truth) < 0.1 * (plain.mean().item() - truth) + 2 * error


def test_standard_error_of_the_pseudo_values_is_the_spread_over_repeated_draws():
    _, pseudo, _ = draws(300, 4, 200, 200)
    claimed = (pseudo.var(1) / GROUPS).mean().sqrt()
    assert claimed.item() == pytest.approx(pseudo.mean(1).std().item(), rel=0.25)


def test_standard_error_does_not_depend_on_the_order_of_the_real_images():
    real, made = features(400), features(200, seed=1) + 1
    by_value = real[real[:, 0].argsort()]
    one, other = (Jackknife(images, GROUPS, 0)(made) for images in (real, by_value))
    assert one.mean().item() == pytest.approx(other.mean().item(), rel=0.02)
    assert one.std().item() == pytest.approx(other.std().item(), rel=0.5)
