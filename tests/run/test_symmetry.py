"""The declared symmetry of conditions and networks is its own inverse, and what it cannot be is refused."""

import pytest
import torch
from torch.nn.functional import linear

from pdiff.run.symmetry import build_symmetry
from pdiff.runtime.errors import PdiffError
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout

TENSORS = {"body": torch.zeros(3, 4), "last.weight": torch.zeros(2, 3), "last.bias": torch.zeros(2)}
LAYOUT = Layout.of(TENSORS)
COMPLEMENT = {"type": "complement", "swap": ["last.weight", "last.bias"]}


def test_complement_turns_every_bit_round():
    conditions = Conditions(["a", "b"], torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    symmetry = build_symmetry(COMPLEMENT, LAYOUT)
    image = symmetry.image(conditions)
    assert image.names == ("a", "b")
    assert image.values.tolist() == [[1, 0], [0, 0]]
    assert torch.equal(symmetry.image(image).values, conditions.values)


def test_complement_exchanges_the_two_outputs_and_leaves_the_vectors_alone():
    symmetry, vectors = build_symmetry(COMPLEMENT, LAYOUT), torch.randn(5, LAYOUT.size)
    before, images, x = vectors.clone(), symmetry.vector(vectors), torch.randn(7, 3)
    assert torch.equal(vectors, before)
    assert torch.equal(symmetry.vector(images), vectors)
    for vector, image in zip(vectors, images, strict=True):
        (own, other) = (LAYOUT.unflatten(v) for v in (vector, image))
        assert torch.equal(own["body"], other["body"])
        outputs = [linear(x, params["last.weight"], params["last.bias"]) for params in (own, other)]
        torch.testing.assert_close(outputs[0].flip(1), outputs[1])


def test_no_symmetry_is_none():
    assert build_symmetry(None, LAYOUT) is None


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"type": "complement", "swap": ["last.wieght"]}, "got 'last.wieght', which is not selected. Did you mean"),
        ({"type": "complement", "swap": ["body"]}, "got 'body' of shape (3, 4), expected two rows, one an output."),
    ],
)
def test_what_cannot_be_swapped_is_refused(cfg, words):
    with pytest.raises(PdiffError) as caught:
        build_symmetry(cfg, LAYOUT)
    assert str(caught.value).startswith(f"fit.symmetry.swap: {words}")


def test_scalar_cannot_be_swapped():
    with pytest.raises(PdiffError, match=r"got 'scale' of shape \(\), expected two rows"):
        build_symmetry({"type": "complement", "swap": ["scale"]}, Layout.of({"scale": torch.tensor(1.0)}))


def test_complement_of_other_numbers_than_bits_is_refused():
    conditions = Conditions(["a"], torch.tensor([[0.0], [0.5]]))
    with pytest.raises(PdiffError, match="got type 'complement' for conditions with other numbers than 0 and 1"):
        build_symmetry(COMPLEMENT, LAYOUT).image(conditions)


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"type": "complemant"}, "fit.symmetry.type: got 'complemant'. Did you mean 'complement'? Known: complement."),
        ({"type": "complement", "swop": []}, "fit.symmetry: got unknown key 'swop'. Did you mean 'swap'?"),
        ("complement", "fit.symmetry: got 'complement', expected a section."),
    ],
)
def test_section_that_is_no_symmetry_is_told(cfg, words):
    with pytest.raises(PdiffError) as caught:
        build_symmetry(cfg, LAYOUT)
    assert str(caught.value).startswith(words)
