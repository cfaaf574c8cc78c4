"""Settings in YAML files and in words of the command line, and one layer of them over another.

Read are plain values alone, with the numbers and words of YAML 1.2's core: no tag, no object, nothing is executed.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from pdiff.runtime.errors import PdiffError, check_section

DEEPEST = 40  # levels of a config; no plugin has ten
ABSENT = object()
DELETE = "_delete_"  # of a section: it replaces the one below it, of the same type too
# What is no text. `007`, `1_000`, `12:30`, dates, and `yes` or `on` are texts; `1e-3` is a number.
PLAIN = {
    "null": (r"null|Null|NULL", "nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
}
NO_TEXT = re.compile("|".join(pattern for pattern, _ in PLAIN.values()))


class Loader(yaml.SafeLoader):
    """YAML's mappings, lists and plain values; no key twice, no tag, nothing that holds itself."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # filled below, in place of those of YAML 1.1
    level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node, if it is one of a config."""
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, f"found the tag {event.tag!r}, and none is read", event.start_mark)
        if self.level == DEEPEST:
            raise ComposerError(None, None, f"found more than {DEEPEST} levels", event.start_mark)
        self.level += 1
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def section(self, node: yaml.MappingNode) -> dict[str, Any]:
        """Return a mapping whose keys are texts, each there once."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "found a key that is no text", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"found the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        self.flatten_mapping(node)  # what `<<` names
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def items(self, node: yaml.SequenceNode) -> list[Any]:
        """Return a list."""
        return [self.construct_object(child, deep=True) for child in node.value]


class Word(Loader):
    """The same for a word of the command line, in which `&a`, `*a` and keys without a value are no YAML."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node, if it is one that a user would write there."""
        event = self.peek_event()
        if event.anchor is not None:
            raise ComposerError(None, None, "found an anchor", event.start_mark)
        if index is not None and isinstance(parent, yaml.MappingNode) and is_left_out(event):
            raise ComposerError(None, None, "found a key without a value", event.start_mark)
        return super().compose_node(parent, index)


def is_left_out(event: yaml.Event) -> bool:
    """Say whether an event stands for a value that is not there."""
    return isinstance(event, yaml.ScalarEvent) and event.style is None and not event.value


for kind, (pattern, first) in PLAIN.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), list(first))
Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"~?\Z"), ["~", ""])
Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<\Z"), ["<"])
Word.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers
Loader.add_constructor("tag:yaml.org,2002:map", Loader.section)
Loader.add_constructor("tag:yaml.org,2002:seq", Loader.items)
Word.yaml_constructors = Loader.yaml_constructors


class Dumper(yaml.SafeDumper):
    """YAML in which a text that `Loader` takes for a number is quoted, so that it comes back as a text."""


FLOAT = re.compile(rf"(?:{PLAIN['float'][0]})\Z")
Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list(PLAIN["float"][1]))


def to_yaml(values: Mapping[str, Any]) -> str:
    """Return settings as the text of a YAML file."""
    return yaml.dump(values, Dumper=Dumper, sort_keys=False)


def read_word(text: str) -> Any:
    """Return the value that a user means by a word of the command line.

    A number, true, false and null, a text in quotes, a list in `[]` and a mapping in `{}` are read as in a YAML file.
    Everything else is the text as it was typed: blanks, commas, brackets and what YAML can make nothing of included.
    """
    if text[:1] not in ("[", "{", "'", '"') and not NO_TEXT.fullmatch(text):
        return text
    try:
        loader = Word(text)
        node = loader.get_single_node()
        whole = node is not None and node.end_mark.index == len(text)
        return loader.construct_document(node) if whole else text
    except (yaml.YAMLError, ValueError):  # ValueError: an integer of thousands of digits
        return text


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`; a section of another `type`, or with `_delete_: true`, replaces it."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        if both and value.get(DELETE) is True:
            result[key] = {name: item for name, item in value.items() if name != DELETE}
        elif both and value.get("type", old.get("type")) == old.get("type"):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def at_home(value: Any) -> Any:
    """Return settings in which `~` at the beginning of a text, in sections and lists too, is the user's folder."""
    if isinstance(value, Mapping):
        return {key: at_home(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [at_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


def read_yaml(path: str | Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the plain values of a YAML config, merged over those of its `_base_`, a file or a list of them.

    Args:
        path: the file; `~` is the user's folder.
        below: files that have this one as their base.

    Raises:
        PdiffError: the file is missing or is no valid config; the line names it.
    """
    path, where = Path(os.path.expanduser(path)), f"config {path}"
    named = f"{where}: is named as _base_ by {below[-1]}, and" if below else f"config: got {str(path)!r}, which"
    if os.path.isdir(path):
        raise PdiffError(f"{named} is a folder. Name a .yaml file in it.")
    if not os.path.isfile(path):
        raise PdiffError(f"{named} is no file. Check the path.")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise PdiffError(f"{named} is no .yaml file. Name one that is.")
    if path.resolve() in below:
        raise PdiffError(f"{where}: has itself as _base_, by way of {below[-1]}. Take one of the two away.")
    values, found = parse_yaml(path, where), {}
    for base in bases_of(path, values.pop("_base_", [])):
        found = merge(found, read_yaml(base, (*below, path.resolve())))
    return merge(found, values)


def bases_of(path: Path, bases: Any) -> list[Path]:
    """Return the files that the `_base_` of a file means, from its folder."""
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise PdiffError(f"config {path}: got _base_ {bases!r}, expected a file or a list of files. Mend it.")
    return [path.parent / os.path.expanduser(base) for base in bases]


def file_that_says(path: str | Path, key: str) -> Path | None:
    """Return the file that a dotted key of a YAML config is from: itself, or one of its `_base_` files; else None."""
    path = Path(os.path.expanduser(path))
    values = parse_yaml(path, f"config {path}")
    found: Any = values
    for part in key.split("."):
        found = found.get(part, ABSENT) if isinstance(found, dict) else ABSENT
    if found is not ABSENT:
        return path
    below = (file_that_says(base, key) for base in reversed(bases_of(path, values.get("_base_", []))))
    return next(filter(None, below), None)


def parse_yaml(path: Path, where: str) -> dict[str, Any]:
    """Return what one YAML file holds; raise a `PdiffError` where that is not keys with values."""
    try:
        values = yaml.load(path.read_bytes().decode("utf-8-sig"), Loader)
    except OSError as error:
        raise PdiffError(f"{where}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise PdiffError(f"{where}: is no UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: {error.problem}"
        raise PdiffError(f"{where}: cannot be read ({line}). Mend it there.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PdiffError(f"{where}: cannot be read ({' '.join(str(error).split())}). Mend it.") from None
    if values is None:
        raise PdiffError(f"{where}: is empty, expected keys with values. Write `plugin: <name>` into it.")
    if not isinstance(values, dict):
        raise PdiffError(f"{where}: got a {type(values).__name__} at its top, expected keys with values.")
    return values


def named(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a section whose `type` is a text, which a file can hold; see `name_of`."""
    check_section(section, where)
    return {**section, "type": name_of(section.get("type"))}


def name_of(kind: Any) -> str:
    """Return the text that stands for a `type` in a file: a name as it is, a class or function as `module:name`."""
    return f"{kind.__module__}:{kind.__qualname__}" if callable(kind) else kind
