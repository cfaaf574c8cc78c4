"""The comparison with the published procedure, on a stand-in for a checkout of its repository."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
NETWORKS = """
import torch
from torch import nn
from .diffusion import DDPMSampler


class OneDimVAE(nn.Module):
    def __init__(self, d_model, d_latent, sequence_length, kernel_size=7):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(sequence_length, d_latent), nn.Linear(d_latent, sequence_length)

    def encode(self, x):
        return self.encoder(x), None

    def decode(self, z):
        return self.decoder(z)

    def forward(self, x, use_var, manual_std, kld_weight):
        z, _ = self.encode(x)
        return (self.decode(z + manual_std * torch.randn_like(z)) - x).square().mean()


class PDiff(nn.Module):
    config = {}

    def __init__(self, sequence_length):
        super().__init__()
        assert self.config["sample_mode"] is DDPMSampler
        self.net = nn.Linear(self.config["model_dim"], self.config["model_dim"])

    def forward(self, x):
        return (self.net(x) - x).square().mean()
"""
SAMPLER = """
from torch import nn


class DDPMSampler(nn.Module):
    def __init__(self, model, beta, T):
        super().__init__()
        self.model, self.T = model, T

    def forward(self, x_t, c):
        for _ in range(self.T):
            x_t = 0.5 * self.model(x_t)
        return x_t
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder that is laid out and called as the authors' repository is."""
    folder = tmp_path / "Neural-Network-Diffusion" / "model"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "pdiff.py").write_text(NETWORKS)
    (folder / "diffusion.py").write_text(SAMPLER)
    return folder.parent


def call(run: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "bench" / "reference.py"), str(run), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_stages_of_a_checkout_are_timed_beside_the_engine_by_a_share_that_is_stated(finished, checkout):
    done = call(finished.path, "--reference", str(checkout), "--quick", "--candidates", "10")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    shares = {row[0]: row[4] for row in rows[2:]}
    assert shares == {
        "fit autoencoder": "8 of 500 steps",
        "fit diffusion": "8 of 1000 steps",
        "draw 200": "40 of 200000 timesteps",
        "evaluate 10": "8 of 10 candidates",
        "fit and 200 samples": "",
    }
    assert all(float(row[3]) >= 0 for row in rows[2:]), "of a toy, and rounded"
    assert "mean accuracy" not in done.stdout


def test_whole_comparison_tells_the_quality_of_both(finished, checkout):
    done = call(finished.path, "--reference", str(checkout), "--candidates", "40", "--samples", "2")
    assert done.returncode == 0, done.stderr
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in done.stdout.splitlines() if line[:1] == "|"}
    for name in ("mean accuracy", "best accuracy", "similarity"):
        assert all(0 <= float(cell) <= 1 for cell in rows[name])
    assert [float(cell) for cell in rows["samples"]] == [200, 2]
    assert "fast better than published by " in done.stdout


def test_folder_that_is_no_checkout_is_refused_in_one_line(finished, tmp_path):
    done = call(finished.path, "--reference", str(tmp_path), "--quick")
    assert done.returncode == 2
    line = f"error: --reference: got {str(tmp_path)!r}, which lacks model/__init__.py"
    assert done.stderr.splitlines()[-1].startswith(line)
