"""Write docs/api.md: the public names of pdiff, from their docstrings."""

import argparse
import importlib
import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
MODULES = ("pdiff", "pdiff.testing")
HEAD = "# Public names\n\nWritten by `python tools/api.py` from the docstrings. The hooks: [plugins.md](plugins.md).\n"
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


def entry(name: str, thing: Any, level: str = "##") -> str:
    """Return the part of one name, that of a class with those of its own public methods."""
    kind = type(thing)
    if not (inspect.isclass(thing) or inspect.isroutine(thing) or kind is property):
        keys = f": {', '.join(f'`{key}`' for key in thing)}" if kind is dict else ""
        return f"{level} `{name}`\n\nA `{kind.__module__.partition('.')[0]}.{kind.__name__}`{keys}.\n"
    named = ""
    if kind is not property and not (inspect.isclass(thing) and issubclass(thing, Exception)):
        parameters = inspect.signature(thing).parameters.values()
        named = f"({', '.join(shown(p) for p in parameters if p.name != 'self')})"
    parts = [f"{level} `{name}{named}`\n\n{markdown(inspect.getdoc(thing) or '')}\n"]
    fields = getattr(thing, "__annotations__", {})  # of a dataclass; a default of theirs may be a function
    for key in vars(thing) if inspect.isclass(thing) else ():
        if key in fields or key.startswith("_"):
            continue
        if isinstance(value := getattr(thing, key), property | FunctionType | MethodType):
            parts.append(entry(f"{name}.{key}", value, "###"))
    return "\n".join(parts)


def reference() -> str:
    """Return the whole page."""
    modules = [importlib.import_module(name) for name in MODULES if find_spec(name)]
    parts = [entry(f"{m.__name__}.{name}", getattr(m, name)) for m in modules for name in sorted(m.__all__)]
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(reference(), encoding="utf-8")
