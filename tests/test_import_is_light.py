"""What importing pdiff does not load, and which way imports point."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HEAVY = {"timm", "mmdet", "mmseg", "diffusers", "matplotlib"}
ROOT = Path(__file__).parent.parent
SHARED = {"images", "openmmlab"}


def heavy_after(*statements: str) -> dict[str, set[str]]:
    """Return the heavy packages that are loaded after each statement, in a fresh interpreter."""
    report = "print(*(name for name in sys.modules if '.' not in name))"
    code = "\n".join(["import sys", *(f"{statement}\n{report}" for statement in statements)])
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {s: HEAVY & set(line.split()) for s, line in zip(statements, output.splitlines(), strict=True)}


def imported(path: Path, package: str) -> Iterator[str]:
    """Yield the full name of everything that a file imports, at its top or inside a function.

    Args:
        path: the file.
        package: dotted name of the package it lies in, from which relative imports start.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(folder: Path, package: str) -> Iterator[tuple[str, str]]:
    """Yield (file, imported name) for every file below the folder of a package."""
    for path in sorted(folder.rglob("*.py")):
        below = path.relative_to(folder).parent.parts
        yield from ((str(path.relative_to(folder)), name) for name in imported(path, ".".join([package, *below])))


def below(name: str, *packages: str) -> bool:
    """Say whether a dotted name is one of the packages or lies in one."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def plugin_of(name: str) -> str:
    """Return the plugin that a dotted name lies in, or an empty word."""
    parts = name.split(".")
    return parts[1] if parts[0] == "pdiff_plugins" and len(parts) > 1 else ""


def foreign(imports: Iterator[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the imports by which a file of one plugin reaches into another."""
    return [
        (file, name)
        for file, name in imports
        if plugin_of(name) not in {"", Path(file).parts[0], *SHARED}
    ]


def test_importing_pdiff_loads_nothing_heavy():
    statements = ("import pdiff", "import pdiff.task.replay", "pdiff.Replay", "pdiff.ParameterDiffusion")
    assert heavy_after(*statements) == {statement: set() for statement in statements}


@pytest.mark.parametrize("name", ["matplotlib", "diffusers"])
def test_the_check_sees_what_is_loaded(name):
    statement = f"import {name}"
    assert heavy_after(statement)[statement] >= {name}


def test_pdiff_imports_neither_plugins_nor_tools():
    imports = list(imports_of(ROOT / "pdiff", "pdiff"))
    assert len(imports) > 100
    assert [pair for pair in imports if below(pair[1], "pdiff_plugins", "plugins", "tools")] == []


def test_pdiff_names_no_plugin_in_a_string():
    strings = [
        node.value
        for path in (ROOT / "pdiff").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [text for text in strings if "pdiff_plugins" in text] == []


def test_no_plugin_imports_another_or_tools():
    imports = list(imports_of(ROOT / "plugins", "pdiff_plugins"))
    assert len(imports) > 10
    assert foreign(iter(imports)) == []
    assert [pair for pair in imports if below(pair[1], "tools", "plugins")] == []


def test_what_plugins_share_imports_no_plugin():
    files = [pair for pair in imports_of(ROOT / "plugins", "pdiff_plugins") if Path(pair[0]).parts[0] in SHARED]
    assert [pair for pair in files if plugin_of(pair[1]) not in {"", *SHARED}] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pdiff_plugins.detection",
        "from pdiff_plugins import detection",
        "from pdiff_plugins.detection.data import boxes",
        "from .. import detection",
        "from ..detection import data",
        "def late():\n    from ..detection.data import boxes",
    ],
)
def test_the_check_sees_a_plugin_that_imports_another(tmp_path, line):
    (tmp_path / "classification").mkdir()
    (tmp_path / "classification" / "data.py").write_text(f"from . import own\nfrom ..openmmlab import ops\n{line}\n")
    assert len(foreign(imports_of(tmp_path, "pdiff_plugins"))) == 1
