"""A new plugin: the files of `template/` with the plugin's name in place of the word NAME."""

import importlib.util
import keyword
import re
from pathlib import Path

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_text, write_text
from pdiff.task.plugins import list_plugins

TEMPLATE = Path(__file__).parent / "template"
WORD = "NAME"
FILES = ("README.md", "pyproject.toml", "test_NAME.py", "NAME/__init__.py", "NAME/default.yaml")


def write_plugin(name: str, path: Path) -> str:
    """Write a plugin that runs at once into the folder `path / name`, and return what to do with it.

    Args:
        name: of the plugin, of its package and of its folder.
        path: the folder that it is put into.

    Raises:
        PdiffError: the name is no identifier or is taken, or there is something in its place.
    """
    check_name(name)
    folder = Path(path) / name
    if folder.exists():
        raise PdiffError(f"new: got {str(folder)!r}, which exists. Give another name, or another --path.")
    if name in {plugin.name for plugin in list_plugins()}:
        raise PdiffError(f"new: got {name!r}, which is the name of an installed plugin. Give another name.")
    if importlib.util.find_spec(name) is not None:
        raise PdiffError(f"new: got {name!r}, which is the name of an installed package. Give another name.")
    for file in FILES:
        write_text(folder / file.replace(WORD, name), read_text(TEMPLATE / file).replace(WORD, name))
    return "\n".join(
        [
            f"{folder}: written. Next:",
            f"  pdiff run --plugin {folder / name}",
            f"  pdiff plugins check {folder / name}",
        ]
    )


def check_name(name: str) -> None:
    """Raise a `PdiffError` for a name that Python or a package index would not take."""
    if not re.fullmatch(r"[a-zA-Z]([a-zA-Z0-9_]*[a-zA-Z0-9])?", name) or keyword.iskeyword(name):
        raise PdiffError(f"new: got {name!r}, expected a Python identifier like my_task. Give another name.")
