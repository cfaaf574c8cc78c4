"""Every code block of the documentation works.

Python is run, a page's blocks in their order and in one namespace. YAML is resolved as a config. Of shell, every
command is looked at without being run: files, make targets and extras exist, and a tool of `tools/` takes the
arguments, `tools/run.py` the whole config. A file of `../then`, the checkout of an earlier commit, is looked for in
that commit. `text` is what a program prints. A Python or YAML block that needs what a test does not have stands below
the line `<!-- not run: REASON -->`: Python is compiled then, and YAML read.
"""

import argparse
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pdiff import DENOISERS, GENERATORS, SAMPLERS, SOURCES
from pdiff.run.config import load_config, resolve
from pdiff.runtime.settings import Loader
from pdiff.scaffold import write_plugin

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"", "text", "python", "yaml", "sh", "toml", "bibtex"}
THEN = "46bf45a"  # the commit that docs/speed.md checks out for tools that are gone
BLOCK = re.compile(r"(?:^<!-- (not run: \S.*) -->\n+)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[tuple[str, bool]]:
    """Return the blocks of a language on a page, and of each whether it can be run."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(code, not mark) for mark, name, code in found if name == language]


def cases(language: str) -> list:
    """Return the pages that have a block of a language, as the cases of a test."""
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if blocks(page, language)]


def commands(code: str) -> list[str]:
    """Return the commands of a shell block, one by one; of a loop, those of its first turn."""
    code = re.sub(r"\s+#.*", "", code.replace("\\\n", " "))
    for name, first, body in re.findall(r"for (\w+) in (\S+)[^;]*; do (.*?); done", code):
        code = code + "\n" + body.replace(f"${name}", first)
    code = re.sub(r"for \w+ in .*?; done", "", code)
    lines = (line.strip() for line in re.split(r"\n|;|&&", code))
    return [line for line in lines if line and not line.startswith(("#", "export "))]


SHELL = [(page, command) for page in PAGES for code, _ in blocks(page, "sh") for command in commands(code)]
WORDS = [pytest.param(command, id=f"{page.relative_to(ROOT)}: {command[:60]}") for page, command in SHELL]


class Accepted(Exception):
    """Raised with the arguments that a tool has taken, before it does anything."""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Stand in a folder that looks like the checkout, with the plugin that docs/plugins.md tells to write."""
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "runs":
            (tmp_path / path.name).symlink_to(path)
    page = ROOT / "docs" / "plugins.md"
    (tmp_path / "moons.py").write_text(blocks(page, "python")[0][0])
    (tmp_path / "moons.yaml").write_text(blocks(page, "yaml")[0][0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def taken(tool: str, words: list[str], monkeypatch) -> argparse.Namespace:
    """Return the arguments that a tool takes from words of a command line."""
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, *given):
        raise Accepted(parse(parser, *given))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr("sys.argv", [tool, *words])
    with pytest.raises(Accepted) as caught:
        runpy.run_path(tool, run_name="__main__")
    return caught.value.args[0]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_block_is_of_a_known_language_and_every_mark_belongs_to_a_block(page):
    text = page.read_text(encoding="utf-8")
    assert {language for _, language, _ in BLOCK.findall(text)} <= LANGUAGES
    assert text.count("\n```") + text.startswith("```") == 2 * len(BLOCK.findall(text))
    assert text.count("<!-- not run") == len([mark for mark, _, _ in BLOCK.findall(text) if mark])


@pytest.mark.parametrize("page", cases("python"))
def test_python_blocks_run(page, checkout, monkeypatch):
    module = ModuleType("documentation")  # one that can be imported, as a notebook's own can
    monkeypatch.setitem(sys.modules, "documentation", module)
    for registry in (DENOISERS, GENERATORS, SAMPLERS, SOURCES):  # what a page registers is gone behind it
        registry.import_from_location()
        monkeypatch.setattr(registry, "_module_dict", dict(registry.module_dict))
    for code, runs in blocks(page, "python"):
        compiled = compile(code, str(page.relative_to(ROOT)), "exec")
        if runs:
            exec(compiled, vars(module))


@pytest.mark.parametrize("page", cases("yaml"))
def test_yaml_blocks_are_configs(page):
    for code, runs in blocks(page, "yaml"):
        values = yaml.load(code, Loader)
        assert isinstance(values, dict)
        if runs:
            resolve(values)


@pytest.mark.parametrize("page", cases("sh"))
def test_shell_blocks_are_valid(page):
    for code, _ in blocks(page, "sh"):
        subprocess.run(["sh", "-n", "-c", code], check=True)


@pytest.mark.parametrize("command", WORDS)
def test_shell_commands_are_accepted(command, checkout, monkeypatch):
    program, *words = shlex.split(command)
    known = {"python": check_python, "pdiff": check_pdiff, "make": check_make, "pip": check_pip, "sh": check_file}
    known |= {"py-spy": check_profiled, "git": check_git, "ln": check_nothing}
    known |= dict.fromkeys(("torchrun", "srun", "mpirun"), check_launched)
    assert program in known, f"unknown command {command!r}"
    known[program](words, monkeypatch)


def check_python(words, monkeypatch) -> None:
    if words[:2] == ["-m", "pdiff"]:
        check_pdiff(words[2:], monkeypatch)
        return
    if words[0] == "-m":
        return
    if words[0].startswith("../then/"):
        check_file(words, monkeypatch)
        return
    arguments = taken(words[0], words[1:], monkeypatch)
    if words[0] != "tools/run.py":
        return
    if arguments.plugin and arguments.plugin.startswith("mine"):  # what `pdiff plugins new mine` writes
        write_plugin("mine", Path())
    load_config(arguments.plugin, arguments.config, {"seed": arguments.seed}, arguments.cfg_options or {})


def check_pdiff(words, monkeypatch) -> None:
    check_python([f"tools/{words[0]}.py", *words[1:]], monkeypatch)


def check_profiled(words, monkeypatch) -> None:
    check_python(words[words.index("python") + 1 :], monkeypatch)


def check_launched(words, monkeypatch) -> None:
    check_python(words[words.index("tools/run.py") :], monkeypatch)


def check_make(words, monkeypatch) -> None:
    targets = set(re.findall(r"^([\w-]+):", Path("Makefile").read_text(), re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets


def check_pip(words, monkeypatch) -> None:
    extras = re.findall(r'^    "(\w+)": \[', Path("setup.py").read_text(), re.MULTILINE)
    for word in words:
        assert set(re.findall(r"\w+", "".join(re.findall(r"^\.\[(.*)\]$", word)))) <= {*extras, "all"}


def check_git(words, monkeypatch) -> None:
    assert words == ["worktree", "add", "../then", THEN]


def check_nothing(words, monkeypatch) -> None:
    pass


def check_file(words, monkeypatch) -> None:
    if not words[0].startswith("../then/"):
        assert Path(words[0]).is_file()
        return
    if not in_history(THEN):
        pytest.skip("needs the history of the repository")
    assert in_history(f"{THEN}:{words[0].removeprefix('../then/')}"), words[0]


def in_history(name: str) -> bool:
    done = subprocess.run(["git", "cat-file", "-e", name], cwd=ROOT, capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w./-])((?:configs|docs|pdiff|plugins|tools)/[\w./-]+\.(?:py|yaml|md|sh|png))", text):
        assert (ROOT / name).is_file(), name
