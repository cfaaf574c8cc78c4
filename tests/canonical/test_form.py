"""The canonical form: one vector for all networks that differ by the order and the scale of their units."""

import pytest
import torch

from pdiff.canonical.form import Form
from pdiff.runtime.errors import PdiffError
from pdiff.weights.vectors import Rows
from tests.canonical.by_hand import mlp, outputs, reordered, residual, rng

NETWORKS = {"mlp": mlp(12, 9, 4), "deep": mlp(10, 16, 16, 12, 4), "residual": residual()}


def population(layout, count=6, seed=0):
    return torch.randn(count, layout.size, generator=rng(seed))


def fitted(kind, name, count=6):
    layout, symmetries = NETWORKS[name]
    vectors = population(layout, count)
    return Form.fit(kind, layout, symmetries, vectors, range(count)), vectors


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["permutation", "permutation+scale"])
def test_a_reordered_copy_has_the_same_canonical_vector(kind, name):
    form, vectors = fitted(kind, name)
    copies = [reordered(form.layout, form.symmetries, v, s, kind != "permutation") for s, v in enumerate(vectors)]
    assert torch.allclose(form.apply(torch.stack(copies)), form.apply(vectors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["permutation", "permutation+scale"])
def test_a_canonical_network_is_the_same_function(kind):
    form, vectors = fitted(kind, "deep")
    x = torch.randn(20, 10, generator=rng(1), dtype=torch.float64)
    canonicals = form.apply(vectors)
    assert (vectors != canonicals).any(1).sum() >= len(vectors) - 1  # the medoid keeps its order
    for own, canonical in zip(vectors, canonicals, strict=True):
        assert torch.allclose(outputs(form.layout, own, x), outputs(form.layout, canonical, x), rtol=1e-4, atol=1e-4)


def test_the_canonical_form_of_a_canonical_network_is_itself():
    form, vectors = fitted("permutation+scale", "deep")
    canonical = form.apply(vectors)
    assert torch.allclose(form.apply(canonical), canonical, atol=1e-6)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    form, vectors = fitted("permutation+scale", "residual")
    form.save(tmp_path)
    loaded = Form.load(tmp_path, form.layout)
    assert torch.equal(loaded.apply(vectors), form.apply(vectors))
    assert (loaded.kind, [group.name for group in loaded.symmetries.groups]) == (
        form.kind,
        [group.name for group in form.symmetries.groups],
    )


def test_a_form_of_another_selection_is_refused(tmp_path):
    fitted("permutation", "mlp")[0].save(tmp_path)
    with pytest.raises(PdiffError, match="another selection"):
        Form.load(tmp_path, NETWORKS["deep"][0])


def test_one_permutation_is_that_of_all_vectors_of_a_training():
    form, vectors = fitted("permutation+scale", "deep")
    permutations = form.permutations(vectors[0])
    whole = form.apply(vectors[:3], permutations)
    assert torch.equal(whole[0], form.apply(vectors[:1])[0])
    assert torch.equal(whole[1], form.apply(vectors[1:2], permutations)[0])


def test_rows_of_a_file_are_fitted_like_a_tensor():
    layout, symmetries = NETWORKS["mlp"]
    vectors = population(layout)
    one = Form.fit("permutation", layout, symmetries, Rows(vectors, [5, 4, 3, 2]), [1, 2, 3])
    other = Form.fit("permutation", layout, symmetries, vectors[[4, 3, 2]], [0, 1, 2])
    assert torch.equal(one.reference, other.reference)


def test_a_network_is_brought_onto_another():
    form, vectors = fitted("permutation+scale", "mlp")
    canonical = form.apply(vectors)
    copy = reordered(form.layout, form.symmetries, canonical[0], 7)
    found = form.onto(torch.stack([copy, canonical[1]]), canonical[:1].repeat(2, 1))
    assert torch.equal(found[0], canonical[0])
    assert (found[1] - canonical[0]).norm() <= (canonical[1] - canonical[0]).norm()


def test_a_network_that_is_no_longer_finite_stays_so():
    form, vectors = fitted("permutation+scale", "mlp")
    vectors[0, 3] = torch.nan
    assert form.apply(vectors).isnan().any(1).tolist() == [True] + [False] * 5
