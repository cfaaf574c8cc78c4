"""Traced networks in canonical form: copies with other units are the same vector, and all are the same functions."""

import pytest
import torch
from pdiff_plugins.classification.mini import NETWORKS

from pdiff.canonical.form import Form
from pdiff.canonical.tracing import trace
from pdiff.weights.layout import Layout
from pdiff.weights.roles import free_names
from tests.canonical.by_hand import reordered, rng


@pytest.fixture(params=NETWORKS)
def network(request):
    """Return a network and three vectors of its kind, each of its own random state."""
    model = NETWORKS[request.param](classes=10).eval()
    state = model.state_dict()
    layout = Layout.of(state, free_names(state, state))
    vectors = torch.stack([layout.flatten(NETWORKS[request.param](classes=10).state_dict()) for _ in range(3)])
    return model, layout, vectors + 0.05 * torch.randn(vectors.shape, generator=rng(0))


@torch.no_grad()
def test_copies_end_as_the_same_vector_and_all_as_the_same_function(network):
    model, layout, vectors = network
    x = torch.randn(2, 3, 64, 64, generator=rng(1))
    form = Form.fit("permutation+scale", layout, trace(model, (x,), layout.names), vectors, range(3))
    canonical = form.apply(vectors)
    copies = torch.stack([reordered(layout, form.symmetries, own, row, True) for row, own in enumerate(vectors)])
    assert ((form.apply(copies) - canonical).norm(dim=1) < 1e-5 * canonical.norm(dim=1)).all()
    for pair in zip(vectors, canonical, strict=True):
        before, after = (torch.func.functional_call(model, layout.unflatten(vector), (x,)) for vector in pair)
        assert (after - before).abs().max() < 1e-4 * before.abs().max()
