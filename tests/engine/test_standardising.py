import torch

from pdiff.engine.standardising import Standardising


def latents():
    rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.01, 1.0, 50.0]) + 7
    return torch.cat([rows, torch.full((40, 1), 0.3)], 1)


def fitted():
    made = Standardising(4)
    made.fit(latents())
    return made


def test_axes_that_vary_have_mean_0_and_deviation_1():
    standard = fitted()(latents())
    torch.testing.assert_close(standard[:, :3].mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(standard[:, :3].std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_a_constant_axis_is_0_and_comes_back_as_it_was():
    made = fitted()
    assert made.varies.tolist() == [True, True, True, False]
    assert (made(latents() + 1)[:, 3] == 0).all()
    assert (made.inverse(torch.ones(2, 4))[:, 3] == 0.3).all()


def test_it_goes_both_ways():
    made = fitted()
    torch.testing.assert_close(made.inverse(made(latents())), latents())


def test_before_a_fit_it_leaves_latents_as_they_are():
    assert torch.equal(Standardising(4)(latents()), latents())
