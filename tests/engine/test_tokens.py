"""Vectors as tokens: nothing is lost in the cutting, and nothing grows faster than the vector."""

import pytest
import torch

from pdiff.engine.tokens import TokenAutoencoder, Tokens, token_axes
from pdiff.runtime.errors import PdiffError
from pdiff.weights.layout import Layout

SHAPES = {"wide": (5, 4), "exact": (8,), "single": (), "short": (3,)}
LAYOUT = Layout.of({name: torch.empty(shape) for name, shape in SHAPES.items()})
SMALL = {"latents": 3, "latent_width": 2, "token": 8, "rank": 2, "width": 8, "heads": 2}


def population(rows=12, size=LAYOUT.size, rank=2):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(rows, rank, generator=rng) @ torch.randn(rank, size, generator=rng) + 5


def fitted(vectors, **changes):
    torch.manual_seed(0)
    autoencoder = TokenAutoencoder(LAYOUT, **SMALL | changes).eval()
    autoencoder.fit(vectors)
    return autoencoder


def parameters(size, **settings):
    autoencoder = TokenAutoencoder(Layout.of({"a": torch.empty(size, device="meta")}), **settings)
    return sum(p.numel() for p in autoencoder.parameters()), sum(b.numel() for b in autoencoder.buffers())


def test_a_token_belongs_to_one_tensor_and_joining_undoes_cutting():
    tokens, vectors = Tokens(LAYOUT, 8), population()
    assert len(tokens) == 3 + 1 + 1 + 1
    assert tokens.tensors().tolist() == [0, 0, 0, 1, 2, 3]
    cut = tokens.cut(vectors)
    assert cut.shape == (12, 6, 8)
    assert torch.equal(tokens.join(cut), vectors)
    assert torch.equal(cut[:, 3], vectors[:, 20:28])


def test_ends_of_tensors_are_filled_with_zeros_that_come_back_in_no_vector():
    tokens, vectors = Tokens(LAYOUT, 8), population()
    cut = tokens.cut(vectors)
    filling = torch.ones(6, 8, dtype=torch.bool)
    for token, used in enumerate((8, 8, 4, 8, 1, 3)):
        filling[token, :used] = False
    assert (cut[:, filling] == 0).all()
    assert torch.equal(tokens.join(cut + 9 * filling), vectors)


def test_what_fills_the_ends_has_no_part_in_the_axes():
    autoencoder = fitted(population())
    for token, used in enumerate((8, 8, 4, 8, 1, 3)):
        assert (autoencoder.axes[token, :, used:] == 0).all()


@pytest.mark.parametrize("most", [8 * 12 * 4, 10**6])
def test_pieces_cover_every_token_and_every_column_once(monkeypatch, most):
    monkeypatch.setattr("pdiff.engine.tokens.VALUES", most)
    places, columns = zip(*Tokens(LAYOUT, 8).pieces(12), strict=True)
    assert [token for place in places for token in range(6)[place]] == list(range(6))
    assert [column for place in columns for column in range(LAYOUT.size)[place]] == list(range(LAYOUT.size))


def test_axes_are_orthonormal_hold_the_variance_and_speak_of_the_same_coordinates():
    shared, _ = torch.linalg.qr(torch.randn(20, 2, generator=torch.Generator().manual_seed(1)).double())
    tokens = torch.einsum("nr,krt->knt", shared.float() * torch.tensor([3.0, 2.0]), torch.randn(4, 2, 30))
    axes, deviation = token_axes(tokens, shared)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(2).double().expand(4, 2, 2), atol=1e-6, rtol=0)
    coordinates = tokens.double() @ axes.mT
    torch.testing.assert_close(coordinates @ axes, tokens.double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(coordinates.square().mean(1).sqrt(), deviation)
    for token in coordinates:
        alike = torch.corrcoef(torch.cat([token.T, shared.T]))[:2, 2:]
        assert (alike.diagonal() > 0.8).all()


def test_fit_a_few_columns_at_a_time_gives_the_axes_of_the_whole(monkeypatch):
    whole = fitted(population())
    monkeypatch.setattr("pdiff.engine.tokens.VALUES", 1)
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 60)
    blocks = fitted(population())
    torch.testing.assert_close(whole.mean, blocks.mean)
    torch.testing.assert_close(whole.axes, blocks.axes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.coder.deviation, blocks.coder.deviation, atol=1e-4, rtol=1e-4)


def test_fit_to_many_vectors_gives_axes_of_the_same_directions(monkeypatch):
    vectors = population().repeat(4, 1) + 0.01 * torch.randn(
        48, LAYOUT.size, generator=torch.Generator().manual_seed(1)
    )
    few = fitted(vectors)
    monkeypatch.setattr("pdiff.engine.tokens.MOST", 20)
    many = fitted(vectors)
    held, other = (torch.einsum("krt,kru->ktu", found.axes, found.axes) for found in (few, many))
    torch.testing.assert_close(other, held, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        many.coder.deviation.square().sum(1), few.coder.deviation.square().sum(1), atol=1e-4, rtol=1e-3
    )


def test_latents_and_vectors_have_their_lengths_and_decoding_stays_in_the_axes():
    autoencoder, vectors = fitted(population()), population()
    latents = autoencoder.encode(vectors)
    assert latents.shape == (12, 6)
    decoded = autoencoder.decode(latents)
    assert decoded.shape == vectors.shape
    tokens = autoencoder.tokens.cut(decoded - autoencoder.mean)
    inside = torch.einsum("bkr,krt->bkt", torch.einsum("bkt,krt->bkr", tokens, autoencoder.axes), autoencoder.axes)
    torch.testing.assert_close(inside, tokens, atol=1e-4, rtol=1e-4)


def test_weights_grow_linearly_with_the_vector_and_not_with_the_latent():
    (learnt, fixed), (learnt2, fixed2), (learnt4, fixed4) = (parameters(size) for size in (2**16, 2**17, 2**18))
    assert learnt4 - learnt2 == 2 * (learnt2 - learnt)
    assert fixed4 - fixed2 == 2 * (fixed2 - fixed)
    assert (learnt2 - learnt) / 2**16 == 64 / 1024, "an embedding of 64 for every 1,024 values"
    more, fixed_more = parameters(2**17, latent_width=64)
    assert fixed_more == fixed2
    assert more - learnt2 < 20_000


def test_a_population_of_two_or_of_one_repeated_vector_is_fitted():
    for vectors in (population(rows=2), population(rows=1).repeat(3, 1)):
        autoencoder = fitted(vectors)
        assert autoencoder.decode(autoencoder.encode(vectors)).isfinite().all()
    torch.testing.assert_close(autoencoder.decode(torch.randn(2, 6)), vectors[:2])


def test_training_on_coordinates_is_training_on_the_vectors():
    vectors = population()
    autoencoder = fitted(vectors)
    coder, coordinates = autoencoder.trainable(vectors)
    latents = autoencoder.encode(vectors)
    torch.testing.assert_close(coder.encode(coordinates), latents)
    error = (coder.decode(latents) - coordinates).square().sum()
    torch.testing.assert_close((autoencoder.decode(latents) - vectors).square().sum(), error, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"token": 0}, r"^engine\.autoencoder\.token: got 0, expected an integer from 1 on"),
        ({"width": 9}, r"^engine\.autoencoder\.width: got 9, expected a multiple of heads, 2\."),
        ({"rank": 9}, r"^engine\.autoencoder\.rank: got 9, expected at most token, 8\."),
    ],
)
def test_unfit_settings_are_refused_in_one_line(changes, line):
    with pytest.raises(PdiffError, match=line):
        TokenAutoencoder(LAYOUT, **SMALL | changes)
