"""Runs that differ in nothing but their seeds, as one group, and the settings in which groups differ."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pdiff.analysis.standards import ORACLE
from pdiff.run.directory import UNSEEN, RunDirectory, flatten

if TYPE_CHECKING:
    from pdiff.run.comparison import Compared
    from pdiff.run.conditional_comparison import ComparedOverConditions
    from pdiff.run.summaries import Gain

DRAWN = ("seed", "fit.seed")  # what is drawn anew within a group
OWN = (*DRAWN, *UNSEEN)  # keys that make no other setting
MOST_KEYS = 6  # that a table has columns for; runs that differ in more are told apart by their names
END_OF_SEED = re.compile(r"[\W_]*((fit\.)?seeds?)?[\W_]*$")  # what names of runs share before their seeds


class Run(Protocol):
    """What `Compared` and `ComparedOverConditions` have in common: all by which runs are grouped.

    Attributes:
        name: that tells it apart.
        path: its directory.
        summary: as in its `summary.json`.
    """

    name: str
    path: Path
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Runs of one setting.

    Attributes:
        name: of a single run its own; of several the values (`latent=8`), or what their names share. Unique.
        values: by dotted key, of the keys that differ among groups; empty where they are not named.
        runs: in the order in which they were given, no two of the same seeds.
    """

    name: str
    values: Mapping[str, Any]
    runs: Sequence[Run]


def group_runs(runs: Sequence[Run], keys: Sequence[str] | None = None) -> list[Group]:
    """Return the groups in the order of their first runs.

    A run whose setting and seeds are those of an earlier one is no other draw, so it begins a further group.

    Args:
        runs: of one kind, with or without conditions.
        keys: dotted ones whose values are named, but for seeds, which a group has several of; None: those that differ,
            where all runs are of one plugin and these are not too many.
    """
    configs = [flatten(RunDirectory(run.path).config()) for run in runs]
    found: list[tuple[dict[str, Any], list[int], list[tuple[Any, ...]]]] = []
    for place, config in enumerate(configs):
        setting, seeds = setting_of(config), seeds_of(config)
        same = (row for row in found if row[0] == setting and seeds not in row[2])
        row = next(same, None) or found.append((setting, [], [])) or found[-1]
        row[1].append(place)
        row[2].append(seeds)
    named = named_keys(configs) if keys is None else [key for key in keys if key not in DRAWN]
    groups: list[Group] = []
    for _, places, _ in found:
        values = {key: value_at(configs[places[0]], key) for key in named}
        taken = {group.name for group in groups} | {run.name for at, run in enumerate(runs) if at not in places}
        name = name_of([runs[place].name for place in places], values, taken)
        groups.append(Group(name, values, [runs[place] for place in places]))
    return groups


def setting_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a flat config makes its setting; a key that an older version lacks is one that says nothing."""
    return {key: value for key, value in config.items() if key not in OWN and value is not None}


def seeds_of(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the seed of the collection and that of the fit, which is the same where nothing else is said."""
    seed, of_fit = (config.get(key) for key in DRAWN)
    return seed, seed if of_fit is None else of_fit


def share_population(runs: Sequence[Run]) -> bool:
    """Say whether runs of a group are of one population: they differ in the seed of fitting and drawing alone."""
    return len({RunDirectory(run.path).config().get("seed") for run in runs}) == 1


def named_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys that tell groups apart; none for runs of several plugins, or that differ in too many."""
    keys = differing_keys(configs) if len({config.get("plugin") for config in configs}) == 1 else []
    return keys if len(keys) <= MOST_KEYS else []


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the dotted keys in which configs differ, seeds and device left out, in the configs' order.

    What only sections of another `type` have follows from that type, and what is in a section that another config does
    not have at all (`fit.decoder: null`) from the section: neither is named beside it.
    """
    # An empty section says as little as none.
    flat = [{key: value for key, value in flatten(dict(config)).items() if value != {}} for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config if key not in OWN)
    found = [key for key in keys if differs(key, flat)]
    return [key for key in found if not any(way in found for way in ways(key)) or differs_within(key, flat)]


def differs_within(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether two flat configs whose sections around a key are of the same types have other values of it."""
    seen: dict[str, Any] = {}
    having = [config for config in configs if key in config]
    return any(seen.setdefault(str(types_around(key, config)), config[key]) != config[key] for config in having)


def differs(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether two flat configs have other values of a key, or one lacks it and nothing around it says why."""
    having = [config for config in configs if key in config]
    if any(value_at(config, key) != having[0][key] for config in having) or any(is_section(key, c) for c in configs):
        return True
    lacking = [config for config in configs if key not in config and not any(way in config for way in ways(key))]
    types = [types_around(key, config) for config in lacking]
    return having[0][key] is not None and any(types_around(key, config) in types for config in having)


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return what a flat config says of a key, a flat section where it says several things; None for nothing."""
    section = {name.removeprefix(f"{key}."): value for name, value in config.items() if name.startswith(f"{key}.")}
    return section or config.get(key)


def is_section(key: str, config: Mapping[str, Any]) -> bool:
    """Say whether a flat config has keys within a key."""
    return any(name.startswith(f"{key}.") for name in config)


def ways(key: str) -> list[str]:
    """Return the sections that a key is in, the outermost first."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def types_around(key: str, config: Mapping[str, Any]) -> list[Any]:
    """Return the `type` of every section that a key is in, the outermost first; None of one that has none."""
    return [config.get(f"{way}.type") for way in ways(key)]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest end of every dotted key that no other of them has: of `engine.autoencoder.latent` `latent`.

    A key that is itself the end of another (`seed` of `fit.seed`) stays as it is, and so does the other.
    """
    names = {}
    for key in keys:
        parts, others = key.split("."), [other for other in keys if other != key]
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        names[key] = next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)
    return names


def setting_name(values: Mapping[str, Any]) -> str:
    """Return values by dotted key as one name: `latent=8, width=32`."""
    names = short_names(list(values))
    return ", ".join(f"{names[key]}={value_text(value)}" for key, value in values.items())


def value_texts(values: Sequence[Any]) -> list[str]:
    """Return the texts of values of one key: short ones, and whole ones where short ones do not tell them apart."""
    texts = [value_text(value) for value in values]
    found = list(zip(texts, values, strict=True))
    mixed = {text for text, value in found if any(text == other and value != its for other, its in found)}
    return [value_text(value, whole=True) if text in mixed else text for text, value in found]


def value_text(value: Any, whole: bool = False) -> str:
    """Return the text of a config's value, as YAML has it; of a section, if not the `whole`, its type or "given"."""
    if isinstance(value, Mapping) and whole:
        return f"{{{', '.join(f'{key}: {value_text(held, whole)}' for key, held in value.items())}}}"
    if isinstance(value, Mapping):
        return str(value.get("type", "given")) if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(value_text(held, whole) for held in value)}]"
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def name_of(names: Sequence[str], values: Mapping[str, Any], taken: set[str]) -> str:
    """Return a group's name, which is not taken yet."""
    if len(names) == 1:
        return names[0]
    choices = (setting_name(values), shared_name(names), ", ".join(names))
    return next(name for name in choices if name and name not in taken)


def shared_name(names: Sequence[str]) -> str:
    """Return what names begin with before their seeds: `digits` of `digits_seed0` and `digits_seed1`."""
    first, last = min(names), max(names)
    same = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    shared = first[: next(same, len(first))]
    if any(name[len(shared) :][:1].isdigit() for name in names):
        shared = shared.rstrip("0123456789")  # what seeds of several digits have in common
    return END_OF_SEED.sub("", shared)


def figures(run: Run) -> dict[str, Any]:
    """Return a run's figures by flat names: `metric`, `verdict_kind`, `generated.mean`, `seconds.fit`, ...

    A gain is relative and above 0 where better, its interval `..._low` and `..._high`: without conditions that of the
    generated over the trained and over the strongest baseline, with conditions that of each source over the oracle. A
    figure that does not exist is None.
    """
    summary = run.summary
    failed = [gate["name"] for gate in summary["gates"] if not gate["passed"]]
    found = {
        "metric": summary["metric"]["name"],
        "higher_is_better": summary["metric"]["higher_is_better"],
        "verdict_kind": summary["verdict_kind"],
        "failed_gates": ", ".join(dict.fromkeys(failed)),
    }
    found |= gains_over_conditions(run) if summary.get("conditional") else gains_of(run)
    for name, row in summary["sources"].items():
        numbers = {key: value for key, value in row.items() if value is None or isinstance(value, int | float)}
        found |= {f"{name}.{key}": value for key, value in numbers.items() if key != "to_oracle"}
    return found | {f"seconds.{stage}": value for stage, value in summary.get("seconds", {}).items()}


def gains_of(run: "Compared") -> dict[str, Any]:
    """Return the gains of a run without conditions."""
    strongest = {"strongest": run.hardest.source if run.hardest else None}
    return gain_figures("gain", run.gain) | strongest | gain_figures("gain_over_strongest", run.hardest)


def gains_over_conditions(run: "ComparedOverConditions") -> dict[str, Any]:
    """Return the gains of a run over conditions."""
    found = {"best_source": run.best} | gain_figures("gain", run.to_oracle(run.best))
    for name in (name for name in run.sources if name != ORACLE):
        found |= gain_figures(f"{name}.to_oracle", run.to_oracle(name))
    return found


def gain_figures(name: str, gain: "Gain | None") -> dict[str, Any]:
    """Return a gain and the ends of its interval."""
    low, high = (gain.ends if gain else None) or (None, None)
    return {name: gain.value if gain else None, f"{name}_low": low, f"{name}_high": high}
