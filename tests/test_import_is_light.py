"""What importing pdiff does not load, and which way imports point."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pdiff
import pdiff.testing

HEAVY = {"timm", "mmdet", "mmseg", "diffusers", "matplotlib"}
ROOT = Path(__file__).parent.parent
SHARED = {"images", "openmmlab"}


def loaded_after(packages: set[str], *statements: str, first: str = "") -> dict[str, set[str]]:
    """Return which of some packages are loaded after each statement, in a fresh interpreter.

    Args:
        packages: that are looked for.
        statements: done one after the other.
        first: done before them.
    """
    report = "print(*(name for name in sys.modules if '.' not in name))"
    code = "\n".join([first, "import sys", *(f"{statement}\n{report}" for statement in statements)])
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {s: packages & set(line.split()) for s, line in zip(statements, output.splitlines(), strict=True)}


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
    assert loaded_after(HEAVY, *statements) == {statement: set() for statement in statements}


# What a user has to wait for: nothing of torch before the arguments, the plugin and the keys are sound.
QUICK = (
    "import pdiff",
    "assert main(['--help'], 'run') is None",
    "assert main(['--plugin', 'nosuch'], 'run') == 2",
    "assert main(['--plugin', 'classification', '--cfg-options', 'genrate.num=3'], 'run') == 2",
    "assert main(['--config', 'nosuch.yaml'], 'run') == 2",
    "assert main(['list'], 'plugins') == 0",
)
CALL = """
import contextlib, io, importlib

def main(arguments, command):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return importlib.import_module(f"pdiff.commands.{command}").main(arguments)
        except SystemExit as error:
            assert error.code == 0
"""


def test_mistakes_are_told_before_torch_is_loaded():
    *quick, listing = loaded_after({"torch"}, *QUICK, first=CALL).values()
    assert quick == [set()] * (len(QUICK) - 1)
    assert listing == {"torch"}, "the check sees what is loaded: a list imports every plugin"


@pytest.mark.parametrize("name", ["matplotlib", pytest.param("diffusers", marks=pytest.mark.slow)])
def test_the_check_sees_what_is_loaded(name):
    statement = f"import {name}"
    assert loaded_after(HEAVY, statement)[statement] >= {name}


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


def outsiders() -> list[tuple[str, str]]:
    """Return (file, imported name) for what is written as by strangers: plugins, examples, the template."""
    examples = [(f"docs/{file}", name) for file, name in imports_of(ROOT / "docs" / "examples", "examples")]
    template = imports_of(ROOT / "pdiff" / "scaffold" / "template", "NAME")
    return [*imports_of(ROOT / "plugins", "pdiff_plugins"), *examples, *template]


def not_public(imports: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the imports from pdiff that are of no public name of `pdiff` or `pdiff.testing`."""
    public = {f"{module.__name__}.{name}" for module in (pdiff, pdiff.testing) for name in module.__all__}
    public |= {"pdiff", "pdiff.testing"}
    return [pair for pair in imports if below(pair[1], "pdiff") and pair[1] not in public]


def test_plugins_examples_and_the_template_import_public_names_only():
    files = {file for file, _ in outsiders()}
    assert {"docs/lora_transformer.py", "NAME/__init__.py", "classification/__init__.py"} <= files
    assert not_public(outsiders()) == []


@pytest.mark.parametrize(
    "line", ["import pdiff.run", "from pdiff.runtime.errors import PdiffError", "from pdiff import runtime"]
)
def test_the_check_sees_a_name_that_is_not_public(tmp_path, line):
    (tmp_path / "mine.py").write_text(f"import pdiff\nfrom pdiff import Task\n\ndef late():\n    {line}\n")
    assert len(not_public(list(imports_of(tmp_path, "mine")))) == 1


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
