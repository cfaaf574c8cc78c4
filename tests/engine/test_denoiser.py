from itertools import pairwise

import pytest
import torch

from pdiff import Layout, ParameterDiffusion, PdiffError
from pdiff.engine.denoiser import ConvDenoiser, MLPDenoiser, sinusoidal_embedding
from pdiff.engine.transformer import TransformerDenoiser

BUILDS = {
    "conv": lambda **condition: ConvDenoiser(12, channels=(2, 4, 8, 16, 8, 4, 2), **condition),
    "mlp": lambda **condition: MLPDenoiser(12, 16, 2, **condition),
    "transformer": lambda **condition: TransformerDenoiser(12, tokens=3, width=16, depth=2, heads=2, **condition),
}


@pytest.fixture(params=BUILDS.values(), ids=BUILDS)
def build(request):
    """Builds a small denoiser of each kind, with weights that leave nothing out."""

    def build(**condition):
        denoiser = request.param(**condition).eval()
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
        return denoiser

    return build


def test_conv_has_the_published_size():
    assert sum(p.numel() for p in ConvDenoiser(128).parameters()) == pytest.approx(2.5e6, rel=0.02)


def test_prediction_depends_on_latent_and_timestep_and_has_the_latent_shape(build):
    denoiser = build()
    z, t = torch.randn(3, 12), torch.tensor([0, 500, 999])
    prediction = denoiser(z, t)
    assert prediction.shape == (3, 12)
    assert not torch.equal(prediction, denoiser(z, t.flip(0)))
    assert not torch.equal(prediction, denoiser(z.flip(0), t))


def test_prediction_depends_on_every_number_of_the_condition(build):
    denoiser = build(condition=3)
    z, t, c = torch.randn(4, 12), torch.tensor([0, 10, 500, 999]), torch.randn(4, 3)
    prediction = denoiser(z, t, c)
    assert prediction.shape == (4, 12)
    for column in range(3):
        changed = c.clone()
        changed[:, column] += 1
        assert (denoiser(z, t, changed) != prediction).any(1).all()


def test_condition_that_is_not_given_is_none_at_all(build):
    denoiser = build(condition=3)
    z, t, c = torch.randn(4, 12), torch.tensor([0, 10, 500, 999]), torch.randn(4, 3)
    part = c.clone()
    part[[1, 3]] = float("nan")
    with_some, without, given = denoiser(z, t, part), denoiser(z, t), denoiser(z, t, c)
    torch.testing.assert_close(with_some[[1, 3]], without[[1, 3]])
    torch.testing.assert_close(with_some[[0, 2]], given[[0, 2]])
    assert not torch.allclose(denoiser(z, t, torch.zeros(4, 3)), without)  # all noughts are a condition too


def test_condition_reaches_every_block_by_itself(build):
    denoiser = build(condition=3)
    blocks = denoiser.layers.layers if isinstance(denoiser, TransformerDenoiser) else denoiser.blocks
    z, t = torch.randn(1, 12), torch.tensor([500])
    for own in blocks:
        said = []

        def hear(block, given, output, own=own, said=said):
            """Keep what one block says, and silence all others."""
            return said.append(output) if block is own else torch.zeros_like(output)

        hooks = [block.register_forward_hook(hear) for block in blocks]
        for c in torch.eye(3):
            denoiser(z, t, c[None])
        assert all(not torch.equal(*pair) for pair in pairwise(said))
        for hook in hooks:
            hook.remove()


def test_denoiser_without_conditions_has_no_weights_for_them(build):
    names, more = build().state_dict().keys(), build(condition=3).state_dict().keys()
    assert names == {name for name in more if not name.startswith("condition.")}
    assert names < more


def test_embedding_of_timestep_zero_is_ones_and_zeros():
    assert sinusoidal_embedding(torch.tensor([0]), 6).tolist() == [[1, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"width": 0}, r"^engine.denoiser.width: got 0, expected an integer from 1 on"),
        ({"depth": -1}, r"^engine.denoiser.depth: got -1"),
        ({"type": "conv", "channels": [4, 0]}, r"^engine.denoiser.channels\[1\]: got 0"),
        ({"type": "conv", "frequencies": 0}, r"^engine.denoiser.frequencies: got 0"),
    ],
)
def test_a_size_of_nothing_is_refused(settings, line):
    with pytest.raises(PdiffError, match=line):
        ParameterDiffusion({"denoiser": settings}).prepare(Layout.of({"vector": torch.empty(40)}))
