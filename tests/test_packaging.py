"""Editable install and built wheel: both bring pdiff, pdiff_plugins, the configs inside them, and the entry points."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
ASK = (
    "import pdiff, pdiff_plugins, pdiff.task.plugins as p; print(pdiff.__file__); print(pdiff_plugins.__file__);"
    "print([(i.name, i.state) for i in p.list_plugins()]); print(p.default_config('classification'))"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def ask(cwd: Path, path: str = "", command: tuple[str, ...] = (sys.executable, "-c", ASK)) -> list[str]:
    env = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    done = subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_editable_install_imports_the_folders_of_the_checkout(tmp_path):
    core, plugins, found, default = ask(tmp_path)
    assert (Path(core), Path(plugins)) == (ROOT / "pdiff" / "__init__.py", ROOT / "plugins" / "__init__.py")
    ready = [(name, "ready") for name in ("classification", "detection", "generation", "segmentation")]
    assert found == str(ready)
    assert Path(default) == ROOT / "plugins" / "classification" / "default.yaml"


def test_wheel_holds_packages_and_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "pdiff/engine/parameter_diffusion.py", "pdiff/run/defaults.yaml", "pdiff/engine/presets/fast.yaml",
        "pdiff/engine/presets/paper.yaml",
        "pdiff/scaffold/template/pyproject.toml", "pdiff/scaffold/template/NAME/default.yaml",
        "pdiff/report/templates/base.html", "pdiff/report/templates/report.html",
        "pdiff_plugins/classification/__init__.py", "pdiff_plugins/classification/default.yaml",
        "pdiff_plugins/openmmlab/extension.py", "pdiff_plugins/openmmlab/operators/boxes.py",
        "pdiff_plugins/detection/default.yaml", "pdiff_plugins/detection/configs/fcos_r18_digits.py",
        "pdiff_plugins/generation/default.yaml", "pdiff_plugins/images/collection.py",
        "pdiff_plugins/segmentation/default.yaml", "pdiff_plugins/segmentation/configs/fcn_r18_digits.py",
    } <= set(names)  # fmt: skip
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pdiff", "pdiff_plugins"}


def test_wheel_works_without_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    core, plugins, found, default = ask(tmp_path, str(site))
    assert all(str(site) in line for line in (core, plugins, default))
    assert "('classification', 'ready')" in found
    listed = ask(tmp_path, str(site), (str(site / "bin" / "pdiff"), "plugins", "list"))
    assert any("classification" in line and "ready" in line for line in listed)
