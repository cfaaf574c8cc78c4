"""Networks whose heads give the classes of a condition alone, by the biases of their last layers.

mmdet and mmseg then load them as any checkpoint, and neither code nor config says anything of the condition. Sigmoid
heads give the classes that stay the scores that they had; of softmax heads, these share what the others had.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from mmcv.cnn import ConvModule
from pdiff_plugins.openmmlab.conditions import Kind
from torch import Tensor, nn

from pdiff import PdiffError, Task

LOW = -1e4  # sigmoid and softmax make zero of it, and float16 holds it
# What layers of class scores are called, beside those with `cls` in their names.
OTHER_NAMES = ("heatmap_head", "conv_seg", "fc_seg", "convs_pred")
# Of these the outputs are the classes, and behind them what is none; `cls_out_channels` may be something else there.
PLAIN_NAMES = ("fc_cls", "cls_embed", "heatmap_head", "conv_seg", "fc_seg")
NOT_CLASSES = 5  # numbers of a box and its objectness, in front of the classes in YOLOv3's outputs


def narrowing(task: Task) -> Callable[[nn.Module, Mapping[str, float]], None] | None:
    """Return what a task does to a network that is exported for a condition; None where it has no conditions."""
    kind = task.splits["train"].kind
    return None if kind is None else partial(narrow, kind=kind, heads=task.head)


@torch.no_grad()
def narrow(model: nn.Module, condition: Mapping[str, float], kind: Kind, heads: Sequence[str]) -> None:
    """Change a network so that it predicts the classes of a condition, and the background, and no other.

    Args:
        model: mmdet's or mmseg's, changed in place.
        condition: of the kind; one that is about no classes changes nothing.
        kind: what the networks are conditioned on.
        heads: names of the modules that give the classes.

    Raises:
        PdiffError: it is no condition of this kind, or the scores of the classes have no bias.
    """
    if set(condition) != set(kind.table.names):
        got, expected = ", ".join(condition), ", ".join(kind.table.names)
        raise PdiffError(f"export: got a condition for {got}, expected {expected}. Name these.")
    labels = kind.labels(torch.tensor([float(condition[name]) for name in kind.table.names]))
    if labels is None:
        return
    kept = {*labels} if kind.background is None else {*labels, kind.background}
    classes = len(kind.table.names) + (kind.background is not None)
    closed = set(range(classes)) - kept
    if not closed:
        return
    if not heads:
        raise refusal(type(model).__name__)
    for name in heads:
        head = model.get_submodule(name)
        for part in head if isinstance(head, nn.ModuleList) else [head]:
            close(part, name, closed)


def refusal(what: str) -> PdiffError:
    """Return the error of a network that cannot be narrowed."""
    line = f"export: {what} has no layer with a bias for each class to close classes by."
    return PdiffError(f"{line} Export a candidate as it is by --pick N, and leave out what else it predicts.")


def close(head: nn.Module, name: str, labels: set[int]) -> None:
    """Lower the biases of some classes of a head; `name` is its name in error lines."""
    layers = list(class_layers(head))
    if not layers or any(layer.bias is None for layer, _ in layers):
        raise refusal(f"{name} ({type(head).__name__})")
    for layer, classes in layers:
        for row, label in enumerate(classes.tolist()):
            if label in labels:
                layer.bias[row] = LOW


def class_layers(head: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield the last layers of the scores of a head's classes, and of which class each output is, or of none."""
    classes = vars(head).get("num_classes")
    for name, child in head.named_children() if classes else ():
        if "cls" not in name and name not in OTHER_NAMES:
            continue
        layers = list(plain_layers(child))
        if name == "cls_branches" and vars(head).get("as_two_stage"):
            layers.pop()  # it chooses among proposals, and predicts nothing
        for layer in layers:
            outputs = layer.weight.shape[0]
            each, first = outputs_of_classes(head, name, outputs)
            behind = each - first - classes  # of no class: the background of a softmax, or objectness behind it
            if 0 <= behind <= 2 and outputs in {each * count for count in prior_counts(head)}:
                yield layer, torch.arange(outputs) % each - first


def plain_layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the linear and convolutional layers of a module that nothing follows, no other layer, norm or ReLU."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        yield module
    elif isinstance(module, nn.Sequential):
        yield from plain_layers(module[-1]) if len(module) else ()
    elif not isinstance(module, ConvModule):
        for child in module.children():
            yield from plain_layers(child)


def outputs_of_classes(head: nn.Module, name: str, outputs: int) -> tuple[int, int]:
    """Return how many of a layer's outputs belong to one prior box, and which of them is that of the first class."""
    if name == "convs_pred":
        return NOT_CLASSES + head.num_classes, NOT_CLASSES
    if name in PLAIN_NAMES:
        return outputs, 0
    return vars(head).get("cls_out_channels", outputs), 0


def prior_counts(head: nn.Module) -> set[int]:
    """Return how many prior boxes a head may have at a place; SSD's differ from level to level."""
    counts = vars(head).get("num_base_priors", 1)
    return set(counts) if isinstance(counts, list | tuple) else {counts}
