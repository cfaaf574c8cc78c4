"""The settings of the engine and of its trainings, checked before anything is computed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdiff.runtime.errors import (
    PdiffError,
    check_keys,
    check_not_negative,
    check_positive,
    check_section,
    check_type,
    known,
)
from pdiff.runtime.settings import merge, named, read_yaml

if TYPE_CHECKING:
    import torch

FOLDER = Path(__file__).parent / "presets"
GENERATORS = Path(__file__).parent / "generators.yaml"
PRESETS = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))

LEARNING_RATE_SCHEDULES = ("cosine", "constant")
COMPILERS = ("none", "eager", "inductor", "cudagraphs")


def check_training(where: str, device: "torch.device", settings: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` for settings that cannot be.

    Args:
        where: their section of the config.
        device: of the training.
        settings: those of `training.train`, all of them and each of its type; `patience` where it can be.
    """
    check_positive(where, batch_size=settings["batch_size"])
    amounts = ("steps", "lr", "weight_decay", "ema", "patience")
    check_not_negative(where, **{key: settings[key] for key in amounts if key in settings})
    if settings["ema"] >= 1:
        raise PdiffError(f"{where}.ema: got {settings['ema']}, expected below 1.")
    for key, choices in (("schedule", LEARNING_RATE_SCHEDULES), ("compile", COMPILERS)):
        if settings[key] not in choices:
            raise PdiffError(f"{where}.{key}: got {settings[key]!r}. {known(settings[key], choices)}")
    if settings["compile"] == "cudagraphs" and device.type != "cuda":
        raise PdiffError(f"{where}.compile: got 'cudagraphs' on the {device}. Use none, or a GPU.")


def check_codec_training(config: Mapping[str, Any], has_weights: bool) -> None:
    """Raise a `PdiffError` when the settings of the training do not fit an autoencoder with or without weights.

    Args:
        config: the complete engine section.
        has_weights: whether there is something in its autoencoder to be trained.
    """
    kind, steps = config["autoencoder"]["type"], config["autoencoder_training"]["steps"]
    if has_weights and steps == 0:
        raise PdiffError(
            f"engine.autoencoder_training.steps: got 0, but the autoencoder {kind!r} must be trained. "
            "Set steps and lr as the preset does that has it: paper (conv) or tokens (tokens)."
        )
    if not has_weights and steps:
        raise PdiffError(
            f"engine.autoencoder: {kind!r} is fitted in closed form and not trained. "
            "Set engine.autoencoder_training.steps to 0."
        )


def engine_config(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete engine section: the preset it names, and its own values over that.

    Raises:
        PdiffError: the preset or a key is unknown.
    """
    check_section(section, "engine")
    own = dict(section)
    preset = own.pop("preset", "fast")
    if preset not in PRESETS:
        raise PdiffError(f"engine.preset: got {preset!r}. {known(str(preset), PRESETS)}")
    base = read_yaml(FOLDER / f"{preset}.yaml")
    check_keys(own, ["preset", *base], "engine")
    generator = named(merge({"generator": base["generator"]}, own)["generator"], "engine.generator")
    base = merge(base, read_yaml(GENERATORS).get(generator["type"], {}))
    complete = merge(base, own)
    for key in ("scaling", "autoencoder", "generator", "denoiser", "sampler"):
        if key != "sampler" or complete[key] is not None:  # what draws in one pass has none
            complete[key] = named(complete[key], f"engine.{key}")
    for key in ("noise_schedule", "autoencoder_training", "generator_training"):
        check_keys(complete[key], base[key], f"engine.{key}")
        for name, value in complete[key].items():
            check_type(value, type(base[key][name]), f"engine.{key}.{name}")
    for key in ("whiten", "condition_dropout"):
        check_type(complete[key], type(base[key]), f"engine.{key}")
    check_not_negative("engine", condition_dropout=complete["condition_dropout"])
    if complete["condition_dropout"] >= 1:
        raise PdiffError(f"engine.condition_dropout: got {complete['condition_dropout']}, expected below 1.")
    return {"preset": preset, **complete}
