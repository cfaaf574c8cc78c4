"""The documentation says what is so: its code runs, its signatures are those of the hooks."""

import inspect
import json
import re
from pathlib import Path

import pytest

from pdiff.task import hookspecs

ROOT = Path(__file__).parents[1]
PLUGINS = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOOKS = ("build", "select_params", "collect", "branches", "load_params", "evaluate", "ensemble", "draw")


def blocks(language: str, page: str = PLUGINS) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_heading_with_its_arguments(name):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
    assert f"### `{name}({arguments}) -> " in PLUGINS


@pytest.mark.parametrize(
    "options",
    [
        ("--no-gates", "--cfg-options", "engine.denoiser_training.steps=100", "evaluate.num=10"),
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


@pytest.mark.slow  # `make test` runs it with all other blocks
def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(blocks("python", README)), names)
    assert names["new"].shape == (200, 300)
    assert (tmp_path / "engine" / "engine.json").is_file()


def test_links_of_readme_and_docs_lead_to_files():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
