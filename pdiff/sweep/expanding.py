"""The settings of a sweep: a resolved config for each run, and the collection that it takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from pdiff.run.config import load_config, told_of_bases
from pdiff.run.grouping import short_names, value_text
from pdiff.runtime.errors import PdiffError
from pdiff.sweep.setting import Setting, as_text, join, unique
from pdiff.sweep.sweep import COLLECTED, Sweep
from pdiff.task.plugins import plugin_name

ITSELF = "config"  # the name of a run with nothing varied
QUICK = {"evaluate.train": [], "generate.path": 0}  # what a comparison of many runs does without, unless told


def settings_of(sweep: Sweep) -> list[Setting]:
    """Return the settings in their order; one that several ablations have is there once.

    Raises:
        PdiffError: a config cannot be resolved; the line names the setting.
    """
    # Among several ablations the config itself is a point of all that vary a single key.
    itself = {as_text(resolved(sweep, {}, seed, ITSELF)) for seed in seeds_of(sweep)} if len(sweep.vary) > 1 else set()
    alone = [number for number, ablation in enumerate(sweep.vary) if len(ablation) < 2]
    settings: dict[str, Setting] = {}  # by the text of their config
    collections: dict[str, str] = {}  # names by the text of what they depend on
    for number, chosen, seed in choices(sweep):
        told = {**chosen, **({} if seed is None else {sweep.seed_key: seed})}
        config = resolved(sweep, chosen, seed, name_of(sweep, told))
        text = as_text(config)
        if text not in settings:
            name = name_of(sweep, {key: told[key] for key in told if text not in itself or key == sweep.seed_key})
            settings[text] = Setting(
                name=unique(name, [setting.name for setting in settings.values()]),
                values=values_of(sweep, chosen, config),
                seed=seed,
                config=config,
                collection=collection_of(sweep, told, config, collections),
                ablations=frozenset(alone if text in itself else ()),
            )
        settings[text] = replace(settings[text], ablations=settings[text].ablations | {number})
    return list(settings.values())


def choices(sweep: Sweep) -> Iterator[tuple[int, dict[str, Any], int | None]]:
    """Yield the number of an ablation, values of its keys, and a seed, for every combination of every ablation."""
    for number, ablation in enumerate(sweep.vary or [{}]):
        for values in product(*ablation.values()):
            for seed in seeds_of(sweep):
                yield number, dict(zip(ablation, values, strict=True)), seed


def seeds_of(sweep: Sweep) -> Sequence[int | None]:
    """Return the seeds; None for the config's own."""
    return sweep.seeds or [None]


def resolved(sweep: Sweep, chosen: Mapping[str, Any], seed: int | None, name: str) -> dict[str, Any]:
    """Return the complete config of one run, as plain values."""
    own = {} if seed is None else {sweep.seed_key: seed}
    options = {"evaluate.only": list(sweep.only), **QUICK, **sweep.options, **chosen, **own}
    try:
        with told_of_bases(sweep.config):
            config = load_config(sweep.plugin, sweep.config, {}, options).to_dict()
            check_drawn(sweep, config)
            return config
    except PdiffError as error:
        raise PdiffError(f"{name}: {error}") from None


def check_drawn(sweep: Sweep, config: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` where seeds of everything would be of the collections alone."""
    seed = config["fit"]["seed"]
    if sweep.seeds and sweep.collect_again and seed is not None and "fit.seed" not in sweep.keys:
        line = f"fit.seed: got {seed}, so that all are fitted and drawn with it, expected null beside --collect-again"
        raise PdiffError(f"{line}, whose seeds are of everything. Leave it out.")


def name_of(sweep: Sweep, told: Mapping[str, Any]) -> str:
    """Return the name of a run from the values of the keys in which it is told apart, its seed last."""
    name, itself = told_apart(sweep, told), not any(key in told for key in sweep.keys)
    return ",".join(part for part in (ITSELF, name) if part) if itself and sweep.vary else name


def told_apart(sweep: Sweep, told: Mapping[str, Any]) -> str:
    """Return values of keys as one name: `latent=8,seed=1`."""
    short = short_names([*sweep.keys, *([sweep.seed_key] if sweep.seeds else [])])
    if "seed" not in [short[key] for key in sweep.keys]:
        short = {**short, sweep.seed_key: "seed"}
    return join({short[key]: value_text(value) for key, value in told.items()})


def values_of(sweep: Sweep, chosen: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every varied key of the sweep: as it was told, else as the config has it."""
    found = {}
    for key in sweep.keys:
        value: Any = config
        for part in key.split("."):
            value = value[part] if isinstance(value, Mapping) and part in value else ...
        if key in chosen or value is not ...:
            found[key] = chosen.get(key, value)
    return found


def collection_of(
    sweep: Sweep, told: Mapping[str, Any], config: Mapping[str, Any], collections: dict[str, str]
) -> str:
    """Return the name of the collection of a config: an earlier one's that depends on the same, or a new one."""
    text = as_text([config[section] for section in COLLECTED])
    if text not in collections:
        asked = {key: value for key, value in told.items() if key.partition(".")[0] in COLLECTED}
        name = told_apart(sweep, asked) if asked else plugin_name(config["plugin"])
        collections[text] = unique(name, collections.values())
    return collections[text]
