"""Write docs/api.md: the public names of pdiff, from their docstrings."""

import argparse
import inspect
import re
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

from mmengine.registry import Registry

import pdiff
import pdiff.testing

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """# Public names

Written by `python tools/api.py` from the docstrings. The hooks: [plugins.md](plugins.md); the engine at work:
[engine.md](engine.md).
"""
GROUPS = {  # heading: the folders of pdiff that its names come from
    "What a plugin hands over": ("task",),
    "Selections, layouts, checkpoint files": ("weights", "files"),
    "The engine and its parts": ("engine", "run"),
    "Settings, errors, seeds, files, progress": ("runtime",),
    "Checks of a plugin": ("testing",),
}
REGISTRY = (
    "A registry of mmengine: what the `type` of a section may name ([config.md](config.md)). "
    "`@{}.register_module(name=...)` adds to it ([plugins.md](plugins.md#bring-a-part-of-the-engine))."
)
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example):")
PLAIN = (type(None), bool, int, float, str, tuple)


def markdown(doc: str) -> str:
    """Return a Google-style docstring as Markdown: bold section names, arguments as lists."""
    lines, listed = [], False
    for line in doc.splitlines():
        if found := SECTION.fullmatch(line):
            listed = found[1] in ("Args", "Attributes", "Raises")
            lines += [f"**{found[1]}**", ""]
        elif listed and re.match(r" {4}\S", line):
            lines.append("- " + re.sub(r"^([\w, ]+):", r"`\1`:", line.strip()))
        else:
            lines.append(line if ">>>" in line else line.strip() and "  " * listed + line.strip())
    return "\n".join(lines)


def shown(parameter: inspect.Parameter) -> str:
    """Return an argument with its default, or dots for one that a person cannot read."""
    plain = parameter.default is parameter.empty or isinstance(parameter.default, PLAIN)
    return str(parameter.replace(annotation=parameter.empty)) if plain else f"{parameter.name}=..."


def entry(name: str, thing: Any, level: str = "###") -> str:
    """Return the part of one name, that of a class with those of its own public methods."""
    if isinstance(thing, Registry):
        return f"{level} `{name}`\n\n{REGISTRY.format(name)}\n"
    kind = type(thing)
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or kind is property):
        keys = f": {', '.join(f'`{key}`' for key in thing)}" if kind in (dict, tuple) else ""
        return f"{level} `{name}`\n\nA `{kind.__name__}`{keys}.\n"
    named = ""
    if kind is not property and not (inspect.isclass(thing) and issubclass(thing, Exception)):
        taken = inspect.signature(thing).parameters
        if list(taken) != ["args", "kwargs"]:  # those of an abstract class, which say nothing
            named = f"({', '.join(shown(p) for p in taken.values() if p.name != 'self')})"
    parts = [f"{level} `{name}{named}`\n\n{markdown(inspect.getdoc(thing) or '')}\n"]
    fields = getattr(thing, "__annotations__", {})  # of a dataclass; a default of theirs may be a function
    for key in vars(thing) if inspect.isclass(thing) else ():
        if key in fields or key.startswith("_"):
            continue
        if isinstance(value := getattr(thing, key), property | FunctionType | MethodType):
            parts.append(entry(f"{name}.{key}", value, f"{level}#"))
    return "\n".join(parts)


def reference() -> str:
    """Return the whole page."""
    rooms = {f"pdiff.{name}": module.split(".")[1] for name, module in pdiff.NAMES.items()}
    things = {name: getattr(pdiff, name.removeprefix("pdiff.")) for name in rooms}
    for name in pdiff.testing.__all__:
        rooms[f"pdiff.testing.{name}"], things[f"pdiff.testing.{name}"] = "testing", getattr(pdiff.testing, name)
    parts = [HEAD]
    for heading, members in GROUPS.items():
        parts.append(f"## {heading}\n")
        parts += [entry(name, things[name]) for name in sorted(rooms) if rooms[name] in members]
    return "\n".join(parts)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(reference(), encoding="utf-8")
