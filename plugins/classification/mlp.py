"""A plain multi-layer perceptron: what hundreds of are trained at once, and generated whole."""

from collections.abc import Sequence

from torch import Tensor, nn

from pdiff import PdiffError, check_positive, known

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """Linear layers over all pixels, an activation between two of them.

    Args:
        pixels: values of an image.
        classes: outputs.
        hidden: width of each hidden layer.
        activation: one of `ACTIVATIONS`.
    """

    def __init__(self, pixels: int, classes: int, hidden: Sequence[int] = (32,), activation: str = "silu"):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise PdiffError(f"task.network.activation: got {activation!r}. {known(activation, ACTIVATIONS)}")
        for width in hidden:
            check_positive("task.network", hidden=width)
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(pixels, width), ACTIVATIONS[activation]()]
            pixels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(pixels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, classes)` of images `(B, C, H, W)`."""
        return self.head(self.features(x))
