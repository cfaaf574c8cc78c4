"""Networks by config: any of timm's by name, the mini networks, and a plain perceptron."""

import difflib
from collections.abc import Sequence

from mmengine.registry import Registry
from pdiff_plugins.classification import mini
from pdiff_plugins.classification.mlp import MLP
from pdiff_plugins.classification.one_pixel import shorten_convolutions
from pdiff_plugins.images.checkpoint import load_checkpoint
from pdiff_plugins.images.data import Split
from torch import nn

from pdiff import PdiffError, build

NETWORKS = Registry("network", scope="pdiff")


@NETWORKS.register_module(name="timm")
def timm_network(
    split: Split,
    name: str,
    pretrained: bool = False,
    checkpoint: str | None = None,
    key: str | None = None,
    prefix: str = "",
    rename: dict | None = None,
    cast: bool = False,
    options: dict | None = None,
) -> nn.Module:
    """Return a timm network for the split's channels and classes.

    Args:
        split: the training split.
        name: timm's name of it.
        pretrained: take timm's weights, where this machine can reach them.
        checkpoint: take the weights of this state-dict file instead.
        key, prefix, rename, cast: how to read that file, as `checkpoints` has them (docs/files.md).
        options: further arguments of `timm.create_model`.
    """
    import timm

    if not timm.is_model(name):
        close = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5))
        raise PdiffError(f"task.network.name: got {name!r}, which timm does not have. Closest: {close or 'none'}.")
    shape = {"in_chans": split.images.shape[1], "num_classes": split.classes}
    try:
        model = timm.create_model(name, pretrained=pretrained, **shape, **(options or {}))
    except (OSError, RuntimeError, TypeError) as error:
        raise PdiffError(
            f"task.network: timm cannot make {name!r} ({' '.join(str(error).split())}). "
            "Check `options`; where weights cannot be reached, give a state dict as `checkpoint`."
        ) from error
    return load_checkpoint(model, checkpoint, key, prefix, rename, cast)


def _register_mini(name: str, network: type[nn.Module]) -> None:
    def make(split: Split) -> nn.Module:
        if split.size != mini.SIZE:
            raise PdiffError(f"task.data.size: got {split.size}, expected {mini.SIZE} for the network {name!r}.")
        return network(split.images.shape[1], split.classes)

    make.__doc__ = network.__doc__
    NETWORKS.register_module(name=name, module=make)


for _name, _network in mini.NETWORKS.items():
    _register_mini(_name, _network)


@NETWORKS.register_module(name="mlp")
def perceptron(split: Split, hidden: Sequence[int] = (32,), activation: str = "silu") -> MLP:
    """Return a plain multi-layer perceptron over all pixels.

    Args:
        split: the training split.
        hidden: width of each hidden layer.
        activation: between two layers: relu, silu, gelu or tanh.
    """
    return MLP(split.images.shape[1] * split.size**2, split.classes, hidden, activation)


def build_network(cfg: dict, split: Split) -> nn.Module:
    """Return the network that a config section describes, for the images and classes of a split."""
    return shorten_convolutions(build(NETWORKS, cfg, "task.network", split=split))


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the module names of the classifier: what timm calls so, or `head` of a mini network or perceptron."""
    if isinstance(model, (MLP, *mini.NETWORKS.values())):
        return ("head",)
    names = model.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
