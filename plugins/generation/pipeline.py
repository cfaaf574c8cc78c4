"""A candidate as a folder that `DDPMPipeline.from_pretrained` loads."""

from pathlib import Path
from typing import Any

from torch import nn

from pdiff import SUFFIXES, PdiffError, explain_write_errors, new_folder


def export_pipeline(noise_schedule: Any, model: nn.Module, path: Path) -> None:
    """Write network and noise schedule as diffusers' DDPMPipeline.

    Args:
        noise_schedule: diffusers' DDPMScheduler.
        model: the UNet.
        path: the folder, which must not be there yet.
    """
    if path.suffix in SUFFIXES:
        raise PdiffError(f"--output: got {str(path)!r}, expected the name of a folder, which diffusers loads.")
    if path.exists():
        raise PdiffError(f"--output: got {str(path)!r}, which exists. Give the name of a new folder.")
    from diffusers import DDPMPipeline

    with explain_write_errors(path), new_folder(path) as aside:
        DDPMPipeline(unet=model, scheduler=noise_schedule).save_pretrained(aside)
