"""Settings of a sweep against one of them, in pairs of one seed."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "tools" / "bench" / "paired.py"


@pytest.fixture(scope="module")
def tool():
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("paired", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sweep(tmp_path):
    """Return a function that writes a finished sweep over one key from means by value and seed."""

    def write(means):
        rows = [(f"{value},seed={seed}", value, seed) for value in means for seed in range(len(means[value]))]
        with (tmp_path / "sweep.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("run", "engine.generator.type", "seed", "fit.seed"), *((*row, "") for row in rows)])
        for name, value, seed in rows:
            folder = tmp_path / "runs" / name / "report"
            folder.mkdir(parents=True)
            gates = [{"name": "denoiser", "figures": {"ratio": 1.0}}]
            summary = {"sources": {"generated": {"mean": means[value][seed]}}, "gates": gates}
            (folder / "summary.json").write_text(json.dumps(summary))
        return tmp_path

    return write


def test_what_seeds_have_in_common_cancels_in_pairs(tool, sweep, capsys):
    folder = sweep({"diffusion": [0.5, 0.7, 0.9], "flow": [0.51, 0.71, 0.92]})
    figures = ["sources.generated.mean", "gates.denoiser.ratio", "copying.own"]
    tool.main([str(folder), "engine.generator.type", "--figures", *figures])
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first == "| diffusion | 0.7000 (0.2032 to 1.1968) |  | 1.0000 |  |  |  |"
    assert second.startswith("| flow | 0.7133 (0.20")
    assert second.endswith(" | +0.0133 (-0.0010 to +0.0277) | 1.0000 | +0.0000 |  |  |")


def test_seeds_that_one_setting_lacks_are_left_out_of_its_pairs(tool, sweep, capsys):
    folder = sweep({"diffusion": [0.5, 0.7, 0.9], "flow": [0.6]})
    tool.main([str(folder), "engine.generator.type", "--figures", "sources.generated.mean"])
    assert capsys.readouterr().out.splitlines()[-1] == "| flow | 0.6000 | +0.1000 |"


def test_folder_that_is_no_sweep_and_key_that_was_not_varied_are_one_line(tool, sweep, tmp_path, capsys):
    assert tool.main([str(tmp_path), "seed"]) == 2
    assert "sweep.csv: is no file. Give the folder of a sweep that has ended." in capsys.readouterr().err
    assert tool.main([str(sweep({"flow": [0.5]})), "engine.generator.typ"]) == 2
    assert "key: got 'engine.generator.typ'. Did you mean 'engine.generator.type'" in capsys.readouterr().err
