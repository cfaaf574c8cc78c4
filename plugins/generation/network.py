"""Networks by config: diffusers' UNet2DModel, from scratch, from a state dict, from a diffusers folder or the hub.

A network carries, as `noise_schedule`, the DDPMScheduler that it is trained for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import Registry
from pdiff_plugins.images.checkpoint import load_checkpoint
from pdiff_plugins.images.data import Split
from torch import nn

from pdiff import PdiffError, build, call, known

NETWORKS = Registry("generator", scope="pdiff")
PREDICTIONS = ("epsilon", "sample", "v_prediction")


def build_noise_schedule(noise: Mapping[str, Any]) -> Any:
    """Return diffusers' DDPMScheduler with the arguments of the config section `task.noise`."""
    from diffusers import DDPMScheduler

    prediction = noise.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise PdiffError(f"task.noise.prediction_type: got {prediction!r}. {known(str(prediction), PREDICTIONS)}")
    try:
        return call(DDPMScheduler, noise, "task.noise")
    except (NotImplementedError, TypeError, ValueError) as error:
        raise PdiffError(f"task.noise: diffusers refuses it ({' '.join(str(error).split())}).") from None


@NETWORKS.register_module(name="unet")
def unet(
    split: Split,
    noise: dict | None,
    options: dict,
    checkpoint: str | None = None,
    key: str | None = None,
    prefix: str = "",
    rename: dict | None = None,
    cast: bool = False,
) -> nn.Module:
    """Return a UNet2DModel for the split's size and channels.

    Args:
        split: the training split.
        noise: what it is trained for; needed.
        options: further arguments of UNet2DModel.
        checkpoint: take the weights of this state-dict file.
        key, prefix, rename, cast: how to read that file, as `checkpoints` has them (docs/files.md).
    """
    from diffusers import UNet2DModel

    if noise is None:
        raise PdiffError("task.noise: got None, expected arguments of diffusers' DDPMScheduler. Give beta_schedule.")
    channels = split.images.shape[1]
    shape = {"sample_size": split.size, "in_channels": channels, "out_channels": channels}
    try:
        model = call(UNet2DModel, options, "task.network.options", **shape)
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise PdiffError(f"task.network.options: diffusers cannot make such a UNet2DModel ({reason}).") from None
    model.noise_schedule = build_noise_schedule(noise)
    return load_checkpoint(model, checkpoint, key, prefix, rename, cast)


@NETWORKS.register_module(name="pretrained")
def pretrained(split: Split, noise: dict | None, name: str) -> nn.Module:
    """Return a UNet2DModel with its weights.

    Args:
        split: the training split; size and channels of its images must be the network's.
        noise: what it is trained for; default: the scheduler beside it.
        name: a folder that diffusers wrote (a pipeline, or a UNet2DModel alone), or a hub's id like
            `google/ddpm-cifar10-32`.
    """
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    alone = Path(name).is_dir() and not (Path(name) / "model_index.json").is_file()
    if alone and noise is None:
        raise PdiffError(f"task.noise: got None, but {name} holds no scheduler. Give arguments of DDPMScheduler.")
    try:
        loaded = (UNet2DModel if alone else DDPMPipeline).from_pretrained(name, low_cpu_mem_usage=False)
    except Exception as error:  # diffusers, and what fetches for it, raise many kinds
        raise PdiffError(
            f"task.network.name: got {name!r}, which cannot be loaded ({' '.join(str(error).split())[:300]}). "
            "Where the hub cannot be reached, bring the folder: `hf download` elsewhere, and give its path."
        ) from None
    model = loaded if alone else loaded.unet
    schedule = DDPMScheduler.from_config(loaded.scheduler.config) if noise is None else build_noise_schedule(noise)
    check_images(model, split, name)
    model.noise_schedule = schedule
    return model


def check_images(model: nn.Module, split: Split, name: str) -> None:
    """Raise a `PdiffError` unless images of the split have the size and the channels of the network's."""
    sizes = model.config.sample_size
    height, width = (sizes, sizes) if isinstance(sizes, int) else sizes
    found, expected = (split.images.shape[1], split.size, split.size), (model.config.in_channels, height, width)
    if found != expected:
        raise PdiffError(
            f"task.data: got images of {' x '.join(map(str, found))} (channels, height, width), expected "
            f"{' x '.join(map(str, expected))} as {name} makes them. Set task.data.size, or take another network."
        )


def build_network(cfg: Mapping[str, Any], noise: Mapping[str, Any] | None, split: Split) -> nn.Module:
    """Return the network that a config section describes, for the images of a split."""
    return build(NETWORKS, cfg, "task.network", split=split, noise=noise)
