"""The documentation says what is so: its code runs, its signatures are those of the hooks."""

import inspect
import json
import re
import sys
from pathlib import Path

import pytest

from pdiff.commands import run
from pdiff.task import hookspecs

ROOT = Path(__file__).parents[1]
PLUGINS = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOOKS = (
    "build", "select_params", "collect", "branches", "load_params", "evaluate", "ensemble", "draw", "inputs",
    "symmetries", "finetune", "loss", "losses",
)  # fmt: skip


def blocks(language: str, page: str = PLUGINS) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_heading_with_its_arguments(name):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
    assert f"### `{name}({arguments}) -> " in PLUGINS


@pytest.mark.parametrize(
    "options",
    [
        ("--no-gates", "--cfg-options", "engine.generator_training.steps=100", "evaluate.num=10"),
        pytest.param((), marks=pytest.mark.slow),
    ],
    ids=["quick", "as it stands"],
)
def test_smallest_plugin_runs_from_the_documentation(tmp_path, monkeypatch, call, options):
    (tmp_path / "moons.py").write_text(blocks("python")[0])
    (tmp_path / "moons.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    done = call("run", "--plugin", "moons.py", *options)
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "runs" / "moons" / "report" / "summary.json").read_text())
    assert summary["sources"]["generated"]["n"] == 100
    assert summary["sources"]["trained"]["mean"] > 0.85


def test_smallest_plugin_has_at_most_forty_lines_of_code():
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 40


PART = next(block for block in blocks("python") if "@DENOISERS.register_module" in block)


@pytest.mark.parametrize("way", ["plugin", "entry point", "place"])
def test_part_of_the_documentation_is_found(tmp_path, processes, way):
    (tmp_path / "moons.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "moons.py").write_text(blocks("python")[0] + (PART if way == "plugin" else ""))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "parts.py").write_text(PART)
    if way == "entry point":
        announced = next(block for block in blocks("toml") if "pdiff.parts" in block)
        place = re.search(r'^my_parts = "(.*)"$', announced, re.MULTILINE)[1]
        (tmp_path / "my_package-1.0.dist-info").mkdir()
        (tmp_path / "my_package-1.0.dist-info" / "METADATA").write_text("Name: my_package\nVersion: 1.0\n")
        entry = f"[pdiff.parts]\nmy_parts = {place}\n"
        (tmp_path / "my_package-1.0.dist-info" / "entry_points.txt").write_text(entry)
    kind = "my_package.parts:Shallow" if way == "place" else "shallow"
    options = ["--dry-run", "--cfg-options", f"engine.denoiser.type={kind}", "engine.denoiser.width=32"]

    def plan(_: int) -> None:  # in a child, because the part is registered for good
        sys.path.insert(0, str(tmp_path))
        raise SystemExit(run.main(["--plugin", str(tmp_path / "moons.py"), *options]))

    done = processes(plan, 1)
    assert done.codes() == [0], done.text("err")
    assert f"type: {kind}" in done.text("out")


def test_part_of_the_documentation_has_at_most_fifteen_lines():
    assert len([line for line in PART.splitlines() if line.strip()]) <= 15


@pytest.mark.slow  # `make test` runs it with all other blocks
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(blocks("python", README)), names)
    assert names["new"].shape == (200, 300)
    assert (tmp_path / "engine" / "engine.json").is_file()


def anchors(page: Path) -> set[str]:
    """Return the places of a page that a link may name: its headings in small letters, joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_of_readme_and_docs_lead_to_files_and_headings():
    for page in PAGES:
        for link, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]+))?\)", page.read_text(encoding="utf-8")):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}#{anchor}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name in index, page
