"""The bench of what a canonical form gives to networks of many trainings."""

import importlib.util
import re
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).parents[2] / "tools" / "bench" / "lineages.py"
ZOO = {
    "plugin": "classification",
    "device": "cpu",
    "select": "all",
    "task": {
        "network": {"type": "mlp", "hidden": [8], "activation": "relu"},
        "data": {"type": "digits", "size": 8, "train": 96, "select": 64},
        "eval_batch": 900,
    },
    "collect": {"seeds": 6, "networks": {"steps": 60, "batch_size": 32, "snapshots": 2, "every": 10}},
    "engine": {"autoencoder": {"latent": 4}, "generator_training": {"steps": 5}},
}


@pytest.fixture(scope="module")
def tool():
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("lineages", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path) -> str:
    """A file with a tiny zoo."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(ZOO))
    return str(tmp_path / "config.yaml")


def rows(said: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table by those that name it."""
    lines = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| ")]
    return {" ".join(re.findall("[a-z+]+", " ".join(cells[:2]))): cells for cells in lines[1:]}


@pytest.mark.parametrize("ray", [False, True])
def test_half_way_points_gain_and_copies_are_found(tool, config, tmp_path, capsys, ray):
    folder = tmp_path / "zoo" if ray else None
    tool.halves(Namespace(config=config, work_dir=tmp_path / "run", ray=folder))
    found = rows(capsys.readouterr().out)
    assert list(found) == ["none", *(f"{kind}{rest}" for kind in tool.KINDS for rest in ("", " onto each other"))]
    assert float(found["permutation+scale"][1]) > float(found["none"][1])
    assert all(float(found[kind][-1]) < 1e-5 for kind in tool.KINDS)
    if ray:
        names = sorted(path.name for path in folder.iterdir())
        assert names == [f"{number:02d}_tune_trainable_zoo" for number in range(6)]
        assert (folder / names[0] / "checkpoint_000001" / "checkpoints").is_file()


def test_every_form_and_codec_has_a_row(tool, config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tool, "CODECS", {"principal": {}})
    tool.codecs(Namespace(config=config, work_dir=tmp_path / "run", num=4, cfg_options=["collect.seeds=5"]))
    found = rows(capsys.readouterr().out)
    assert list(found) == ["none principal", "permutation principal", "permutation+scale principal"]
    assert all(0 <= float(cell) <= 1 for cells in found.values() for cell in cells[2:])


def test_generated_are_compared_with_every_source_by_run(tool, compared, capsys):
    means = [{"generated": 0.6, "soup": 0.5}, {"generated": 0.7, "soup": 0.62}, {"generated": 0.65, "soup": 0.53}]
    sources = [
        {name: {"mean": mean, "select": mean} for name, mean in {"trained": 0.9, **run}.items()} for run in means
    ]
    tool.zoos(Namespace(runs=[compared(str(place), sources=own) for place, own in enumerate(sources)]))
    *_, generated, soup = capsys.readouterr().out.splitlines()
    assert generated == "| generated | 0.6000 | 0.7000 | 0.6500 | 0.6500 | +0.0000 |  |"
    assert re.fullmatch(r"\| soup \| 0\.5000 \| 0\.6200 \| 0\.5300 \| 0\.5500 \| \+0\.1000 \| 0\.01\d\d \|", soup)
