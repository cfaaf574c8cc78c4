import pytest
import torch

from pdiff.weights import vectors as module
from pdiff.weights.gram import centred_gram, centred_products
from pdiff.weights.vectors import Made, Rows

TRAINED = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) + 5
OTHERS = torch.randn(4, 50, generator=torch.Generator().manual_seed(1)) + 5


@pytest.mark.parametrize("values", [12, 120, 10_000])
def test_products_in_blocks_are_those_of_the_whole(monkeypatch, values):
    monkeypatch.setattr(module, "VALUES", values)
    average = TRAINED.mean(0)
    centred, others = (TRAINED - average).double(), (OTHERS - average).double()
    torch.testing.assert_close(centred_gram(Rows(TRAINED, range(6))), centred @ centred.T, rtol=1e-5, atol=1e-5)
    made = Made(OTHERS.shape, lambda rows, rng: OTHERS[rows], torch.Generator())
    torch.testing.assert_close(centred_products(made, TRAINED), others @ centred.T, rtol=1e-5, atol=1e-5)
