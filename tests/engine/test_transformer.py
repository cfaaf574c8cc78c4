import pytest
import torch

from pdiff.engine.transformer import TransformerDenoiser
from pdiff.runtime.errors import PdiffError


def test_prediction_depends_on_every_piece_and_on_the_timestep_and_has_the_latent_shape():
    torch.manual_seed(0)
    denoiser = TransformerDenoiser(12, tokens=3, width=16, depth=1, heads=2).eval()
    z, t = torch.randn(3, 12), torch.tensor([0, 500, 999])
    prediction = denoiser(z, t)
    assert prediction.shape == (3, 12)
    assert not torch.equal(prediction, denoiser(z, t.flip(0)))
    for column in range(12):
        changed = z.clone()
        changed[:, column] += 1
        assert (denoiser(changed, t) != prediction).any(1).all()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"tokens": 5}, r"^engine\.denoiser\.tokens: got 5, expected a divisor of the latent, 12\."),
        ({"tokens": 3, "width": 10}, r"^engine\.denoiser\.width: got 10, expected a multiple of heads, 4\."),
        ({"tokens": 3, "depth": 0}, r"^engine\.denoiser\.depth: got 0, expected an integer from 1 on"),
    ],
)
def test_unfit_settings_are_refused_in_one_line(settings, line):
    with pytest.raises(PdiffError, match=line):
        TransformerDenoiser(12, **settings)
