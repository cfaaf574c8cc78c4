"""What a classifier is trained for."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def classify(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the cross-entropy `()` of a batch, and its accuracy `()`.

    Args:
        model: from images to logits `(B, classes)`.
        images: `(B, C, H, W)`.
        labels: `(B,)`.
    """
    logits = model(images)
    accuracy = (logits.argmax(1) == labels).float().mean()
    return cross_entropy(logits, labels), {"accuracy": accuracy}
