"""Configs: YAML, merged over defaults, every unknown key refused."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pdiff.engine.behaving_settings import DEFAULTS, behaving_settings
from pdiff.engine.settings import engine_config
from pdiff.run.needed import NEEDED
from pdiff.runtime.errors import (
    PdiffError,
    UnknownKey,
    check_keys,
    check_not_negative,
    check_positive,
    check_section,
    check_share,
    check_type,
    known,
)
from pdiff.runtime.settings import DEEPEST, file_that_says, merge, named, read_word, read_yaml
from pdiff.task.plugins import default_config, plugin_name

PACKAGE = Path(__file__).parent
CANONICAL = ("none", "permutation", "permutation+scale")
FOREIGN_SECTIONS = ("task", "collect", "engine")  # read by the plugin, and by the engine
# Where the default, null, does not say it.
TYPES = {
    "plugin": str | None,
    "select": str | None,
    "checkpoints.files": str | None,
    "checkpoints.key": str | None,
    "checkpoints.base": str | None,
    "checkpoints.rows": str | None,
    "checkpoints.conditions": str | list | None,
    "checkpoints.lineage": str | None,
    "fit.num": int | None,
    "fit.seed": int | None,
    "fit.symmetry": dict | None,
    "fit.conditions": list | None,
    "fit.decoder": dict | None,
    "fit.hypernet": dict | None,
    "generate.sampler": dict | None,
    "evaluate.only": list | None,
}


def resolve(values: Mapping[str, Any]) -> Config:
    """Return the complete config of a run: the core's defaults, and `values` over them.

    Raises:
        PdiffError: a key of the top level, or of a section that the core reads, is unknown.
    """
    defaults = read_yaml(PACKAGE / "defaults.yaml")
    check_keys(values, defaults, "config")
    complete = merge(defaults, values)
    for name in ("plugin", "seed", "device", "select"):
        check_type(complete[name], TYPES.get(name, type(defaults[name])), name)
    for section in ("task", "collect"):
        check_section(complete[section], section)
    own = {key: value for key, value in defaults.items() if isinstance(value, dict) and key not in FOREIGN_SECTIONS}
    for section, settings in own.items():
        check_keys(complete[section], settings, section)
        complete[section] = {**settings, **complete[section]}  # `_delete_` drops what a file has, not the defaults
        for name, value in complete[section].items():
            where = f"{section}.{name}"
            check_type(value, TYPES.get(where, type(settings[name])), where)
    form = complete["checkpoints"]["format"]
    form = {"type": form} if isinstance(form, str) else form
    complete["checkpoints"]["format"] = named(form, "checkpoints.format")
    for where, seed in {"seed": complete["seed"], "fit.seed": complete["fit"]["seed"]}.items():
        check_seed(seed, where)
    check_checkpoints(complete["checkpoints"], defaults["checkpoints"])
    complete["engine"] = engine_config(complete["engine"])
    for table in ("sources", "conditional"):
        where = f"evaluate.{table}"
        check_section(complete["evaluate"][table], where)
        complete["evaluate"][table] = {
            name: None if source is None else named(source, f"{where}.{name}")
            for name, source in complete["evaluate"][table].items()
        }
    for key in ("split", "symmetry"):
        value = complete["fit"][key]
        complete["fit"][key] = None if value is None else named(value, f"fit.{key}")
    for key in DEFAULTS:
        value = complete["fit"][key]
        complete["fit"][key] = None if value is None else behaving_settings(key, value)
    check_own(**{section: complete[section] for section in ("fit", "generate", "evaluate", "compare")})
    return Config(complete)


def check_seed(seed: int | None, where: str) -> None:
    """Raise a `PdiffError` for a seed that torch cannot take."""
    if seed is not None and not -(2**63) <= seed < 2**64:
        raise PdiffError(f"{where}: got {seed}, expected an integer of 64 bits. Give a smaller one.")


def check_checkpoints(checkpoints: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` for a name that is empty, values of a wrong kind, or settings of files without files."""
    for key in ("files", "base", "conditions"):
        if isinstance(checkpoints[key], str) and not checkpoints[key].strip():
            raise PdiffError(f"checkpoints.{key}: got {checkpoints[key]!r}, expected a name. Give one, or null.")
    conditions = checkpoints["conditions"]
    columns = isinstance(conditions, list) and conditions and all(isinstance(name, str) for name in conditions)
    if not columns and not isinstance(conditions, str | None):
        raise PdiffError(f"checkpoints.conditions: got {conditions!r}, expected a text or columns.")
    given = [name for name, value in checkpoints.items() if value != defaults[name]]
    if given and checkpoints["files"] is None:
        raise PdiffError(
            f"checkpoints.{given[0]}: got {checkpoints[given[0]]!r} without checkpoints.files, which it is for. Give "
            "both, or neither: the plugin collects then."
        )


def check_own(
    fit: Mapping[str, Any], generate: Mapping[str, Any], evaluate: Mapping[str, Any], compare: Mapping[str, Any]
) -> None:
    """Raise a `PdiffError` for a number out of range, or for sources that are none, in the core's own sections."""
    if not 0 <= fit["heldout"] <= 0.5:
        raise PdiffError(
            f"fit.heldout: got {fit['heldout']!r}, expected a share of the checkpoints from 0 to 0.5, not their "
            "number. Set 0.3 to hold out three in ten."
        )
    if fit["canonical"] not in CANONICAL:
        raise PdiffError(f"fit.canonical: got {fit['canonical']!r}. {known(fit['canonical'], CANONICAL)}")
    if fit["num"] is not None and fit["num"] < 2:
        raise PdiffError(f"fit.num: got {fit['num']}, expected an integer from 2 on. Raise it, or set it to null.")
    check_positive("fit", repeats=fit["repeats"])
    names = fit["conditions"]
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if names is not None and (not texts or not names or len(set(names)) < len(names)):
        raise PdiffError(f"fit.conditions: got {names!r}, expected names, each once. Set [accuracy], say, or null.")
    check_positive("generate", num=generate["num"], batch_size=generate["batch_size"], draws=generate["draws"])
    check_share("generate", target=generate["target"])
    check_not_negative("generate", path=generate["path"], guidance=generate["guidance"])
    if generate["num"] < fit["repeats"]:
        raise PdiffError(
            f"generate.num: got {generate['num']} for {fit['repeats']} fits (fit.repeats), expected at least one of "
            "each. Raise it, or lower fit.repeats."
        )
    if generate["sampler"] is not None:
        check_section(generate["sampler"], "generate.sampler")
    check_positive("evaluate", num=evaluate["num"], together=evaluate["together"])
    check_not_negative("evaluate", recalibrate=evaluate["recalibrate"])
    for table, names in NEEDED.items():
        for name in names:
            if (evaluate[table].get(name) or {}).get("type") != name:
                raise PdiffError(f"evaluate.{table}: lacks `{name}: {{type: {name}}}`, which every comparison needs.")
    check_only(evaluate)
    check_not_negative("compare", margin=compare["margin"])


def check_only(evaluate: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` for a name in `evaluate.only` that no source has."""
    tables = (evaluate["sources"], evaluate["conditional"])
    names = {name for table in tables for name, source in table.items() if source is not None}
    for name in evaluate["only"] or ():
        if name not in names:
            raise PdiffError(f"evaluate.only: got {name!r}. {known(name, names)}")


def load_config(plugin: str | None, path: str | None, over: Mapping[str, Any], options: Mapping[str, Any]) -> Config:
    """Return the complete config of a run from what the command line says.

    Args:
        plugin: name or path; default: the one that the file names.
        path: the file; default: the plugin's embedded config.
        over: values of the top level, those that are None left out.
        options: dotted keys and their values.

    Raises:
        PdiffError: neither plugin nor file is given, they name different plugins, or a key is unknown.
    """
    if not plugin and not path:
        raise PdiffError("run: got neither --plugin nor --config. Give one; `tools/plugins.py list` shows the plugins.")
    embedded = default_config(plugin) if plugin and not path else path
    values = read_yaml(embedded) if embedded else {}
    check_type(values.get("plugin"), TYPES["plugin"], "plugin")
    if plugin and values.get("plugin") not in (None, plugin, plugin_name(plugin)):
        raise PdiffError(f"--plugin: got {plugin!r}, but {embedded} is for {values['plugin']!r}. Leave one out.")
    values["plugin"] = plugin or values.get("plugin")
    if not values["plugin"]:
        raise PdiffError(f"config {path}: names no plugin. Add `plugin: <name>` to it, or give --plugin.")
    values |= {key: value for key, value in over.items() if value is not None}
    return resolve(merge(values, nested(options)))


@contextmanager
def told_of_bases(path: str | None) -> Iterator[None]:
    """Say of an unknown key which `_base_` of a config file it is from, where the file itself does not have it."""
    try:
        yield
    except UnknownKey as error:
        top = error.where == "config"
        file = file_that_says(path, error.key if top else f"{error.where}.{error.key}") if path else None
        if file is None or path is None or file.samefile(os.path.expanduser(path)):
            raise
        remedy = "Leave it out of that file" if top else f"`_delete_: true` in your {error.where} drops that of it"
        raise PdiffError(f"{error} It is from {file}, which is the _base_. {remedy}.") from None


def read_options(words: Sequence[str], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys and the values that words of the command line, `a.b=value`, give them.

    Args:
        words: of one `--cfg-options`.
        found: keys and values of those before it.

    Raises:
        PdiffError: a word sets nothing, or a key is given twice.
    """
    options = dict(found)
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or "" in key.split("."):
            raise PdiffError(f"--cfg-options: got {word!r}, expected a.b=value. Mend it.")
        if not text:
            raise PdiffError(
                f"--cfg-options: got {word!r}, which is no value, as of a variable of the shell that is not set. "
                f"Give one: null for none, {key}=\"''\" for the empty text."
            )
        if key in options:
            raise PdiffError(f"--cfg-options: got {key!r} twice. Leave one out.")
        options[key] = read_option(key, text)
    return options


def read_option(key: str, text: str) -> Any:
    """Return the value of one key of the command line; a key that takes a text takes it as it is typed, but `null`."""
    quoted = text[0] in "'\"" and text[0] == text[-1]
    return text if key in keys_of_texts() and not quoted and text != "null" else read_word(text)


@cache
def keys_of_texts() -> frozenset[str]:
    """Return the core's keys that take a text and nothing else."""
    defaults = read_yaml(PACKAGE / "defaults.yaml")
    texts = {key for key, kind in TYPES.items() if kind == str | None}
    texts |= {key for key, value in defaults.items() if isinstance(value, str)}
    for section, values in defaults.items():
        if isinstance(values, dict):
            texts |= {f"{section}.{key}" for key, value in values.items() if isinstance(value, str)}
    return frozenset(texts)


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as nested sections."""
    result: dict[str, Any] = {}
    for key, value in options.items():
        section = result
        *path, last = key.split(".")
        if len(path) >= DEEPEST:
            raise PdiffError(f"--cfg-options: got {key[:40] + '...'!r}, expected at most {DEEPEST} levels. Shorten it.")
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise PdiffError(f"--cfg-options: got {key!r}, but another option sets {part!r} itself. Leave one out.")
        if last in section:
            raise PdiffError(f"--cfg-options: got {key!r}, but another option sets a part of it. Leave one out.")
        section[last] = value
    return result
