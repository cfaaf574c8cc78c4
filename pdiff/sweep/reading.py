"""A sweep from its file, a YAML, and from the command line."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdiff.runtime.errors import PdiffError, check_keys, check_section, check_type
from pdiff.runtime.settings import read_yaml
from pdiff.sweep.sweep import Sweep

TYPES = {
    "plugin": str | None, "config": str | None, "options": None, "vary": list, "seeds": list, "only": list,
    "collect_again": bool,
}  # fmt: skip
EMPTY = {
    "plugin": None, "config": None, "options": {}, "vary": [], "seeds": [], "only": [], "collect_again": False,
}  # fmt: skip


def read_sweep(path: str | Path) -> Sweep:
    """Return the sweep of a file; paths in it are from its folder.

    Raises:
        PdiffError: the file is no config, has an unknown key, or a value of another kind.
    """
    where, values = f"sweep {path}", read_yaml(path)
    check_keys(values, TYPES, where)
    values = {**EMPTY, **values}
    for name, kind in TYPES.items():
        check_type(values[name], kind, f"{where}: {name}")
    check_section(values["options"], f"{where}: options")
    for ablation in values["vary"]:
        check_section(ablation, f"{where}: vary")
        for key, found in ablation.items():
            check_type(found, list, f"{where}: vary.{key}")
    for name, kind in (("seeds", int), ("only", str)):
        for value in values[name]:
            check_type(value, kind, f"{where}: {name}")
    folder = Path(os.path.expanduser(path)).parent
    if values["config"]:
        values["config"] = str(folder / os.path.expanduser(values["config"]))
    if values["plugin"] and (folder / os.path.expanduser(values["plugin"])).exists():
        values["plugin"] = str(folder / os.path.expanduser(values["plugin"]))  # else the name of an installed one
    return Sweep(**values)


def over_file(path: str | None, told: Mapping[str, Any], vary: Mapping[str, Sequence[Any]], each: bool) -> Sweep:
    """Return the sweep of the command line, over that of a file if there is one, and checked.

    Args:
        path: of the file.
        told: attributes of a sweep that the command line says, without `vary`; what is empty is not said.
        vary: values by key.
        each: each key by itself, and the config as it is once, in place of all combinations.

    Raises:
        PdiffError: both say what only one may, or the sweep cannot be.
    """
    if each and not vary:
        raise PdiffError("--each: got it without --vary, whose keys it is for. Leave it out.")
    keys = [{}, *({key: values} for key, values in vary.items())] if each else [vary] if vary else []
    if path is None:
        sweep = Sweep(**{**EMPTY, **{name: value for name, value in told.items() if value}, "vary": keys})
        sweep.check()
        return sweep
    for name, given in {"plugin": told["plugin"], "config": told["config"], "vary": keys}.items():
        if given:
            raise PdiffError(f"--{name}: got it with --sweep, whose file says what is swept. Leave one out.")
    found = read_sweep(path).to_dict()
    options = {**found["options"], **(told["options"] or {})}
    sweep = Sweep(**{**found, **{name: value for name, value in told.items() if value}, "options": options})
    sweep.check()
    return sweep
