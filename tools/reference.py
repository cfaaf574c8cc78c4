"""Write docs/config.md: every key of a config, from defaults.yaml, the engine's presets and docstrings."""

import argparse
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Any, get_args

import yaml
from mmengine.registry import Registry

from pdiff.engine import settings
from pdiff.engine.schedule import noise_schedule
from pdiff.engine.training import train
from pdiff.engine.watching import Watch
from pdiff.run import config
from pdiff.runtime.settings import read_yaml

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """# Every key of a config

Written by `python tools/reference.py` from `pdiff/run/defaults.yaml`, the engine's presets and docstrings. What a
config says is merged over the defaults; an unknown key is refused. A section with a `type` takes the keys below that
type in the table; a `type` may also be `module:name`, or a class
([plugins.md](plugins.md#bring-a-part-of-the-engine)).

A file is merged over those that its `_base_` names, one or a list of them, from its own folder. A section of another
`type` replaces the one below it, and so does one with `_delete_: true`. Files are plain YAML, in UTF-8: no tags, no key
twice. `~` at the beginning of a path is the user's folder; relative paths are from the folder that a command is called
in.

On the command line a section is set key by key: `--cfg-options engine.sampler.type=DDPM engine.sampler.steps=100`. A
value is what YAML reads:

| written | read |
|---|---|
| `3`, `-0.5`, `1e-3`, `true`, `false`, `null` | numbers, true, false, none |
| `'[generated, soup]'`, `'{type: DDIM, steps: 20}'` | a list, a section (the outer quotes are the shell's) |
| `"'007'"`, `"''"` | a text in quotes of its own; the empty text |
| `my runs/*.pth`, `a,b`, `run[1]`, `regex(a{1,2}b)`, `~/x` | a text, as it was typed |
| `007`, `1_000`, `2024-01-01`, `12:30`, `nan`, `yes`, `on` | a text, as it was typed |

The last two rows are also how a file is read. The core's keys that take a text, `checkpoints.files` for one, take
whatever was typed, `true` and `5` too, but for `null`. Nothing behind `=` is an error, as is a key that is given twice.
"""
WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", list: "list", NoneType: "null"}
KEYED = re.compile(r"( *)(\w+):(?:.*\s# (.*))?")
OWN = ("pdiff", "pdiff_plugins")  # the packages whose parts are shown
WHOLE = ("evaluate.sources", "evaluate.conditional")  # sections whose own keys are names that a user gives
NETWORK, IMAGES, OPENMMLAB = "task names seed", "pdiff_plugins.images", "pdiff_plugins.openmmlab"
CLASSIFICATION = "pdiff_plugins.classification"
AUGMENT = ", ".join(f"collect.{part}.augment" for part in ("train", "finetune", "networks"))
RUNNER = "task seed config library draws folder device state"
GROUPS = {  # heading: place in a config, what reads it, and which of its arguments the program gives
    "Parts of the engine": [
        ("engine.scaling", "pdiff:SCALINGS", "size"),
        ("engine.autoencoder", "pdiff:AUTOENCODERS", "size layout"),
        ("engine.generator", "pdiff:GENERATORS", "size condition process config"),
        ("engine.denoiser", "pdiff:DENOISERS", "size condition"),
        ("engine.sampler, generate.sampler", "pdiff:SAMPLERS", "schedule flow"),
    ],
    "Files": [("checkpoints.format", "pdiff:FORMATS", "pattern reader names")],
    "Conditions": [
        ("fit.split", "pdiff.run.splits:SPLITS", "rows rng"),
        ("fit.symmetry", "pdiff.run.symmetry:SYMMETRIES", "layout"),
    ],
    "Sources": [("evaluate.sources.*, evaluate.conditional.*", "pdiff:SOURCES", "pool rng")],
    "Classification": [
        ("task", "pdiff_plugins.classification:build_task", "seed device"),
        ("task.network", "pdiff_plugins.classification.networks:NETWORKS", "split"),
        ("task.uncertainty", f"{CLASSIFICATION}.uncertainty:build_uncertainty", "splits seed conditions"),
    ],
    "Generation": [
        ("task", "pdiff_plugins.generation.task:build_task", "seed device folder conditions"),
        ("task.network", "pdiff_plugins.generation.network:NETWORKS", "split noise"),
        ("task.sampler", "pdiff_plugins.generation.sampling:Sampler", "noise_schedule seed"),
        ("task.features", "pdiff_plugins.generation.features:FEATURES", "splits seed folder"),
    ],
    "Classification and generation": [
        ("task.data", f"{IMAGES}.data:DATASETS", "run_seed"),
        ("collect", f"{IMAGES}.collection:snapshots", f"{NETWORK} network objective state branch"),
        ("collect.train", f"{IMAGES}.collection:train_base", "task seed number objective state"),
        ("collect.finetune", f"{IMAGES}.collection:finetune_selection", f"{NETWORK} place base objective state"),
        (AUGMENT, f"{IMAGES}.augment:AUGMENTATIONS", ""),
    ],
    "Classification with conditions": [
        ("task.conditions", f"{CLASSIFICATION}.conditions:CONDITIONS", "seed"),
        ("collect", f"{CLASSIFICATION}.many:snapshots_of_many", f"{NETWORK} network state branch"),
        ("collect.networks", f"{CLASSIFICATION}.together:train_together", "model data conditions begins seed first"),
    ],
    "Generation with conditions": [
        ("collect.conditions", "pdiff_plugins.generation.class_conditions:sets_of_classes", "names seed"),
        ("collect", "pdiff_plugins.generation.many:snapshots_of_sets", f"{NETWORK} network state branch"),
        ("collect.networks", "pdiff_plugins.generation.many:network_settings", "model names"),
    ],
    "Classification of a zoo": [
        ("collect", f"{CLASSIFICATION}.zoo:snapshots_of_zoo", f"{NETWORK} network state branch"),
        ("collect.networks", f"{CLASSIFICATION}.zoo:train_apart", "model data begins numbers seed"),
    ],
    "Detection": [("task", "pdiff_plugins.detection:detection_task", "seed device seen validated conditions")],
    "Segmentation": [("task", "pdiff_plugins.segmentation:segmentation_task", "seed device seen conditions")],
    "Detection and segmentation": [
        ("task.model", f"{OPENMMLAB}.libraries:open_config", "library"),
        ("task.data", f"{OPENMMLAB}.data:build_splits", "library config seed seen check conditional"),
        ("task.data.scenes", f"{OPENMMLAB}.scenes:compose_scenes", ""),
        ("collect", f"{OPENMMLAB}.collection:snapshots", f"{NETWORK} device state folder library branch"),
        ("collect.train", f"{OPENMMLAB}.collection:train_base", RUNNER),
        ("collect.finetune", f"{OPENMMLAB}.collection:finetune_settings", "model names config"),
    ],
    "Detection and segmentation with conditions": [
        ("collect.conditions", f"{OPENMMLAB}.conditions:CONDITIONS", "seed"),
        ("collect", f"{OPENMMLAB}.many:snapshots_of_many", f"{NETWORK} device state folder library branch"),
        ("collect.networks", f"{OPENMMLAB}.many:network_settings", "model names config"),
    ],
}


def words(kind: Any) -> str:
    """Return a type as a person says it."""
    if isinstance(kind, UnionType):
        return " or ".join(map(words, get_args(kind)))
    return WORDS.get(kind) or (f"list of {words(get_args(kind)[0])}s" if get_args(kind) else "section")


def shown(value: Any) -> str:
    """Return a value as YAML on one line; nothing for a section whose keys are shown themselves."""
    if value is inspect.Parameter.empty or value == {}:
        return "" if value == {} else "needed"
    plain = list(value) if isinstance(value, tuple) else value
    line, *_ = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), sort_keys=False).splitlines()
    return f"`{line}`"


def arguments(doc: str) -> dict[str, str]:
    """Return what a Google-style docstring says of each argument."""
    found, names = {}, []
    for line in doc.partition("\nArgs:\n")[2].partition("\n\n")[0].splitlines():
        if match := re.fullmatch(r" {4}([\w, ]+): (.*)", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def comments(path: Path) -> dict[str, str | None]:
    """Return the words behind each key of a YAML file, by dotted key."""
    found, above = {}, []
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := KEYED.match(line):
            above = [*above[: len(match[1]) // 2], match[2]]
            found[".".join(above)] = match[3]
    return found


def flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; a section comes empty before its keys, one with a `type` whole."""
    for key, value in values.items():
        inside = isinstance(value, dict) and "type" not in value
        yield above + key, {} if inside else value
        if inside and above + key not in WHOLE:
            yield from flat(value, f"{above}{key}.")


def row(where: str, meanings: dict[str, str | None], key: str, *cells: str) -> str:
    """Return a row of a table; a key without a meaning stops everything."""
    if not meanings.get(key):
        raise LookupError(f"{where}: {key!r} has no meaning. Say it where it is defined.")
    return f"| `{key}` | {' | '.join(cells)} | {meanings[key].removesuffix('.')} |"


def table(*columns: str) -> list[str]:
    """Return the head of a table."""
    return ["", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]


def core() -> list[str]:
    """Return the table of what the core reads."""
    path = config.PACKAGE / "defaults.yaml"
    said, lines = comments(path), table("key", "type", "default", "meaning")
    for key, value in flat(read_yaml(path)):
        kind = config.TYPES.get(key, str | None if value is None else type(value))
        lines.append(row(path.name, said, key, words(kind), shown(value)))
    return lines


def engine() -> list[str]:
    """Return the table of the engine's keys, with their values in each preset."""
    presets = [dict(flat(read_yaml(settings.FOLDER / f"{name}.yaml"))) for name in ("fast", "paper", "tokens")]
    said = comments(settings.FOLDER / "fast.yaml")
    read_by = {"noise_schedule": noise_schedule, "autoencoder_training": train, "generator_training": train}
    for section, read in [*read_by.items(), ("generator_training", Watch)]:
        said |= {f"{section}.{key}": text for key, text in arguments(inspect.getdoc(read)).items()}
    lines = table("key below `engine`", "type", "`fast`", "`paper`", "`tokens`", "meaning")
    for key, value in presets[0].items():
        lines.append(row("fast.yaml", said, key, words(type(value)), *(shown(preset[key]) for preset in presets)))
    return lines


def settings_of(target: Callable, given: Sequence[str], where: str) -> Iterator[str]:
    """Yield a row for each argument of a class or function that a config gives."""
    said = arguments(inspect.getdoc(target) or "")
    for key, taken in inspect.signature(target).parameters.items():
        if key not in given:
            yield row(where, said, key, words(taken.annotation), shown(taken.default))


def place_of(found: Any) -> tuple[str, int]:
    """Return where a class or function is written: the order of the page must not be that of the imports."""
    return found.__module__, inspect.getsourcelines(found)[1]


def part(place: str, name: str, given: str) -> list[str]:
    """Return the table of one place in a config: the keys of what reads it, or of each type that it may name."""
    target, lines = resolve_name(name), table("key", "type", "default", "meaning")
    if not isinstance(target, Registry):
        return ["", f"### `{place}`", *lines, *settings_of(target, given.split(), place)]
    target.import_from_location()
    for kind, found in sorted(target.module_dict.items(), key=lambda pair: place_of(pair[1])):
        if found.__module__.partition(".")[0] not in OWN:
            continue
        first = (inspect.getdoc(found) or "").partition("\n\n")[0].removeprefix("Return ").replace("\n", " ")
        lines.append(row(place, {f"type: {kind}": first}, f"type: {kind}", "", ""))
        lines += settings_of(found, given.split(), f"{place} {kind}")
    return ["", f"### `{place}`", *lines]


def reference() -> str:
    """Return the whole page."""
    lines = [HEAD, "## The run", *core(), "", "## The engine", *engine()]
    for heading, places in GROUPS.items():
        lines += ["", f"## {heading}", *(line for place in places for line in part(*place))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(reference(), encoding="utf-8")
