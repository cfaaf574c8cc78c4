"""Decoders that can be trained on their own, of every kind of autoencoder."""

import pytest
import torch
from torch import nn

from pdiff import Autoencoder, Layout, PdiffError
from pdiff.engine.autoencoder import ConvAutoencoder, PrincipalAutoencoder
from pdiff.engine.decoder import load_part, load_trained, trained
from pdiff.engine.tokens import TokenAutoencoder
from pdiff.runtime.storage import write_tensors

VECTORS = torch.randn(30, 70, generator=torch.Generator().manual_seed(0))
LATENTS = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


class Tied(Autoencoder):
    """An autoencoder of somebody else's, one matrix for both ways, and a weight that only the encoder has."""

    def __init__(self, size):
        super().__init__()
        self.latent = 8
        self.matrix, self.gain = nn.Parameter(torch.randn(size, 8)), nn.Parameter(torch.ones(8))
        self.norm = nn.BatchNorm1d(8)

    def encode(self, scaled):
        return scaled @ self.matrix * self.gain

    def decode(self, latents):
        return self.norm(latents) @ self.matrix.T


class Nothing(Autoencoder):
    """An autoencoder without anything that can be trained."""

    latent = 8

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(70))

    def encode(self, scaled):
        return scaled[:, :8]

    def decode(self, latents):
        return nn.functional.pad(latents, (0, 62))


def autoencoders():
    torch.manual_seed(0)
    tokens = TokenAutoencoder(Layout.of({"w": torch.zeros(7, 10)}), 4, 2, token=16, rank=3, width=16)
    return [PrincipalAutoencoder(70, 8), ConvAutoencoder(70, 8), tokens, Tied(70)]


@pytest.mark.parametrize("number", range(4))
def test_a_decoder_begins_with_the_same_values_and_leaves_the_autoencoder_alone(number):
    autoencoder = autoencoders()[number].eval()
    autoencoder.fit(VECTORS)
    before = {name: tensor.clone() for name, tensor in autoencoder.state_dict().items()}
    decoder = autoencoder.trainable_decoder().train()
    expected = autoencoder.decode(LATENTS)
    assert torch.allclose(decoder(LATENTS), expected, atol=1e-5)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3)
    for _ in range(10):
        optimizer.zero_grad()
        decoder(LATENTS).square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in trained(decoder).values())
        optimizer.step()
    assert decoder(LATENTS).square().mean() < expected.square().mean()
    assert all(torch.equal(before[name], tensor) for name, tensor in autoencoder.state_dict().items())
    assert torch.equal(autoencoder.decode(LATENTS), expected)


def test_what_decoding_does_not_use_is_not_trained():
    assert not any(name.startswith("autoencoder.encoder.") for name in trained(autoencoders()[1].trainable_decoder()))
    assert {name.split(".")[1] for name in trained(Tied(70).trainable_decoder())} == {"matrix", "norm"}


def test_batch_norms_keep_their_statistics():
    decoder = autoencoders()[1].trainable_decoder().train()
    before = [buffer.clone() for buffer in decoder.buffers()]
    decoder(LATENTS)
    assert all(torch.equal(own, buffer) for own, buffer in zip(before, decoder.buffers(), strict=True))


def test_an_autoencoder_with_nothing_to_train_has_a_decoder_all_the_same():
    decoder = Nothing().trainable_decoder()
    assert torch.equal(decoder(LATENTS), Nothing().decode(LATENTS))
    assert trained(decoder) == {}


@pytest.mark.parametrize("number", range(4))
def test_what_is_trained_goes_to_disk_and_back(number, tmp_path):
    autoencoder = autoencoders()[number].eval()
    autoencoder.fit(VECTORS)
    decoder, other = autoencoder.trainable_decoder(), autoencoder.trainable_decoder()
    with torch.no_grad():
        for parameter in trained(decoder).values():
            parameter.mul_(1.5).add_(0.1)
    write_tensors(tmp_path / "decoder.safetensors", trained(decoder))
    load_part(tmp_path / "decoder.safetensors", lambda tensors: load_trained(other, tensors), "engine.json")
    assert torch.equal(other(LATENTS), decoder(LATENTS))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": torch.zeros(8, 70)}, "bias is in one of them alone"),
        ({"weight": torch.zeros(8, 7), "bias": torch.zeros(70)}, "size mismatch for weight"),
    ],
)
def test_tensors_of_another_decoder_are_refused_in_one_line(tmp_path, tensors, words):
    path, decoder = tmp_path / "decoder.safetensors", PrincipalAutoencoder(70, 8).trainable_decoder()
    write_tensors(path, tensors)
    with pytest.raises(PdiffError, match=f"does not fit engine.json .*{words}.*Fit again") as caught:
        load_part(path, lambda tensors: load_trained(decoder, tensors), "engine.json")
    assert "\n" not in str(caught.value)
