"""The five networks of 24 K to 81 K parameters whose whole is generated (arXiv 2402.13144, whole-network settings).

All take 64 x 64 pixels. With 3 channels and 10 classes they have the published numbers of parameters.
"""

import math

import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

SIZE = 64


def _normalised(layer: nn.Module, shape: tuple[int, ...]) -> list[nn.Module]:
    return [layer, nn.LayerNorm(shape), nn.LeakyReLU()]


class ConvNetMini(nn.Module):
    """Three convolutions with layer normalisation; 24,262 parameters."""

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            *_normalised(nn.Conv2d(channels, 8, 7, stride=2, padding=3), (8, 32, 32)),
            nn.MaxPool2d(2),
            *_normalised(nn.Conv2d(8, 8, 3, padding=1), (8, 16, 16)),
            nn.MaxPool2d(2),
            *_normalised(nn.Conv2d(8, 4, 3, padding=1), (4, 8, 8)),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.LeakyReLU(), nn.Linear(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, classes)` of images `(B, channels, 64, 64)`."""
        return self.head(self.features(x))


class MLPMini(nn.Module):
    """Three linear layers on the halved grey image; 66,970 parameters."""

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.features = nn.Sequential(*_normalised(nn.Linear(1024, 64), (64,)), *_normalised(nn.Linear(64, 16), (16,)))
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, classes)` of images `(B, channels, 64, 64)`."""
        return self.head(self.features(self.pool(x).mean(1).flatten(1)))


class ResidualConvolutions(nn.Module):
    """Two convolutions through a narrower middle, added to the input."""

    def __init__(self, channels: int, middle: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, middle, 3, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(middle, channels, 3, padding=1),
            nn.LeakyReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, channels, H, W)`."""
        return x + self.layers(x)


class ResNetMini(nn.Module):
    """One convolution and two residual blocks with layer normalisation; 25,138 parameters."""

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1),
            nn.LeakyReLU(),
            nn.LayerNorm((8, 32, 32)),
            nn.MaxPool2d(2),
            ResidualConvolutions(8, 4),
            nn.LayerNorm((8, 16, 16)),
            nn.MaxPool2d(2),
            ResidualConvolutions(8, 4),
            nn.LayerNorm((8, 8, 8)),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128, 16), nn.LeakyReLU(), nn.Linear(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, classes)` of images `(B, channels, 64, 64)`."""
        return self.head(self.features(x))


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Return fixed two-dimensional position embeddings `(rows * columns, width)` (Beyer et al., 2022)."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 4) / (width // 4 - 1))
    angles = [position.flatten()[:, None] * frequencies for position in (x, y)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)


class Attention(nn.Module):
    """Pre-normalised multi-head self-attention without biases."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, tokens, width)`."""
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ViTMini(nn.Module):
    """A SimpleViT: patches of 8, width 64, depth 4, 4 heads of 8; 80,714 parameters."""

    def __init__(self, channels: int = 3, classes: int = 10, width: int = 64, depth: int = 4, patch: int = 8):
        super().__init__()
        self.patch = patch
        pixels = channels * patch**2
        self.embed = nn.Sequential(nn.LayerNorm(pixels), nn.Linear(pixels, width), nn.LayerNorm(width))
        positions = sincos_positions(SIZE // patch, SIZE // patch, width)
        self.register_buffer("positions", positions, persistent=False)
        self.attention = nn.ModuleList(Attention(width, heads=4, head_width=8) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, classes)` of images `(B, channels, 64, 64)`."""
        patches = x.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        x = self.embed(patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)) + self.positions
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = x + attention(x)
            x = x + mlp(x)
        return self.head(self.norm(x).mean(1))


class ConvNeXtMini(ConvNeXt):
    """timm's ConvNeXt with depths 1-2-2-2 and widths 16-32-32-32; 74,970 parameters."""

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__(channels, classes, depths=(1, 2, 2, 2), dims=(16, 32, 32, 32))


NETWORKS: dict[str, type[nn.Module]] = {
    "convnet_mini": ConvNetMini,
    "mlp_mini": MLPMini,
    "resnet_mini": ResNetMini,
    "vit_mini": ViTMini,
    "convnext_mini": ConvNeXtMini,
}
