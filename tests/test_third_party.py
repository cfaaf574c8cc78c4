"""A plugin of somebody else: built as a wheel, installed into a fresh environment, found by its name, and run there."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from pdiff.runtime.storage import read_json
from pdiff.scaffold import write_plugin

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
QUICK = [
    "collect.finetune=30", "engine.denoiser.width=16", "engine.generator_training.steps=20", "generate.num=4",
    "generate.path=0", "evaluate.num=4", "evaluate.train=[]",
]  # fmt: skip


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment of its own into which the wheel of a new plugin was installed.

    The packages of this environment are lent to it, so that nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("third_party")
    write_plugin("mine", folder)
    wheel = ["wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder), str(folder / "mine")]
    subprocess.run([sys.executable, "-m", "pip", *wheel], check=True)
    venv.create(folder / "env")
    own = folder / "env" / "bin" / "python"
    lend = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    paths = {"base": str(folder / "env"), "platbase": str(folder / "env")}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    (site / "lent.pth").write_text(lend)
    install = ["install", "--quiet", "--no-deps", "--no-index", str(next(folder.glob("*.whl")))]
    subprocess.run([own, "-m", "pip", *install], check=True)
    assert (site / "mine" / "default.yaml").is_file()
    return own


def call(python: Path, folder: Path, tool: str, *arguments: str) -> str:
    """Return what a tool prints in an environment."""
    command = [str(python), str(ROOT / "tools" / f"{tool}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_finds_the_installed_plugin_beside_the_others(python, tmp_path):
    rows = call(python, tmp_path, "plugins", "list").splitlines()
    row = next(line for line in rows if "pdiff-mine" in line)
    assert "ready" in row
    assert any("classification" in line and "ready" in line for line in rows)


def test_the_installed_plugin_runs_by_its_name(python, tmp_path):
    call(python, tmp_path, "run", "--plugin", "mine", "--no-gates", "--cfg-options", *QUICK)
    summary = read_json(tmp_path / "runs" / "mine" / "report" / "summary.json")
    assert (summary["plugin"], summary["sources"]["generated"]["n"]) == ("mine", 4)


def test_the_installed_plugin_keeps_the_rules_and_passes_every_gate(python, tmp_path):
    assert "failed" not in call(python, tmp_path, "plugins", "check", "mine")
    call(python, tmp_path, "run", "--plugin", "mine")
