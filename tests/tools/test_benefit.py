"""The tables of what generating is good for."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline

FILE = Path(__file__).parents[2] / "tools" / "bench" / "benefit.py"
NET = {"width": 8, "depth": 1, "steps": 20, "batch_size": 8}
CHOSEN = {"n": 5, "spearman": 0.5, "p": 0.2, "regret": 0.01, "gain": 0.02, "gain_ci": [0.0, 0.04]}
SURE = {"negative_log_likelihood": {"mean": 0.25, "std": 0.1}, "calibration_error": {"mean": 0.0625, "std": 0.1}}


@pytest.fixture(scope="module")
def tool():
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("benefit", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def seeded(compared):
    """Return a function that writes runs with a summary alone, of one config but for the seed, one for each given."""

    def write(*summaries: dict, name: str = "run") -> list[str]:
        paths = [compared(f"{name}{seed}", **changes) for seed, changes in enumerate(summaries)]
        for seed, path in enumerate(paths):
            (path / "config.yaml").write_text(yaml.safe_dump({"plugin": "classification", "seed": seed}))
        return list(map(str, paths))

    return write


def tables(said: str) -> list[dict[str, list[str]]]:
    """Return the tables, each with its rows by the first cell."""
    found: list[dict[str, list[str]]] = []
    lines = [line for line in said.splitlines() if line.startswith("|")]
    for place, line in enumerate(lines):
        if place + 1 < len(lines) and lines[place + 1].startswith("|---"):
            found.append({})
        name, *cells = [cell.strip() for cell in line[1:-1].split("|")]
        found[-1][name] = cells
    return found


@pytest.fixture
def pair(closed, tmp_path) -> list[Path]:
    """Two finished runs over conditions that differ in the seed, with a hypernetwork under a name of its own."""
    paths = [tmp_path / "runs" / str(seed) for seed in (0, 1)]
    kept = ("oracle", "generated", "soup", "generated_permuted")
    left_out = {name: None for name in resolve(closed).evaluate.conditional if name not in kept}
    sources = {**left_out, "predicted": {"type": "hypernet"}}
    for seed, path in enumerate(paths):
        own = {"seed": seed, "fit": {"hypernet": NET}, "evaluate": {"conditional": sources}}
        run_pipeline(resolve(merge(closed, own)), RunDirectory(path), gates=False)
    return paths


def test_runs_over_conditions_have_quality_beside_cost_and_bytes(tool, pair, tmp_path, capsys):
    runs = [*map(str, pair)]
    assert tool.main(["conditions", *runs, "--draw", str(tmp_path / "cost.png")]) == 0
    (table,) = tables(capsys.readouterr().out)
    table.pop("source"), table.pop("---")
    sources = [read_json(path / "report" / "summary.json")["sources"] for path in pair]
    means = {name: np.mean([own[name]["mean"] for own in sources]) for name in sources[0]}
    assert list(table) == sorted(means, key=means.get, reverse=True)
    for name, cells in table.items():
        assert float(cells[0].split()[0]) == pytest.approx(means[name], abs=6e-5)
        assert float(cells[3]) == pytest.approx(np.mean([own[name]["seconds"] for own in sources]), rel=0.06)
    assert table["oracle"][1] == ""
    assert (tmp_path / "cost.png").read_bytes()[1:4] == b"PNG"
    assert tool.main(["storage", *runs]) == 0
    (table,) = tables(capsys.readouterr().out)
    population, engine = (pair[0] / name for name in ("population", "engine"))
    size = (population / "vectors.f32").stat().st_size
    net = sum(file.stat().st_size for file in (engine / "hypernet").glob("*.safetensors"))
    net += (engine / "scaling.safetensors").stat().st_size
    drawn = sum(file.stat().st_size for file in engine.glob("*.safetensors"))
    assert table["oracle"][2] == "1.000"
    assert float(table["predicted"][2]) == pytest.approx(net / size, abs=6e-4)
    assert float(table["generated"][2]) == pytest.approx(drawn / size, abs=6e-4)
    assert table["predicted"][0] == table["generated"][0] == "8"


def test_seconds_that_nobody_knows_are_left_empty_and_out_of_the_figure(
    tool, compared_over_conditions, tmp_path, capsys
):
    rows = {"oracle": (0.8, None), "ridge": (0.76, 1.0), "generated": (0.72, None)}
    runs = []
    for seed in (0, 1):
        runs.append(str(compared_over_conditions(str(seed), rows)))
        (Path(runs[-1]) / "config.yaml").write_text(yaml.safe_dump({"plugin": "classification", "seed": seed}))
    assert tool.main(["conditions", *runs, "--draw", str(tmp_path / "cost.png")]) == 0
    said = capsys.readouterr().out
    assert [tables(said)[0][name][3] for name in rows] == ["", "1", ""]
    assert said.splitlines()[-1] == "seconds of the stages: not known"
    assert (tmp_path / "cost.png").is_file()


def test_figures_beside_the_metric_are_means_over_runs(tool, seeded, capsys):
    sure = {"mean": 0.5, "select": 0.5, "details": SURE}
    sources = {"trained": sure, "generated": sure, "soup": {"mean": 0.25, "select": 0.2, "details": {}}}
    assert tool.main(["uncertainty", *seeded({"sources": sources}, {"sources": sources})]) == 0
    (table,) = tables(capsys.readouterr().out)
    assert table["source"] == ["accuracy", "negative_log_likelihood", "calibration_error"]
    assert [cell.split()[0] for cell in table["trained"]] == ["0.5000", "0.2500", "0.0625"]
    assert table["soup"] == ["0.2500, -0.2500", "", ""], "the same in all runs: no interval"


def test_choosing_by_training_data_stands_beside_choosing_by_select(tool, seeded, capsys):
    select = {"spearman": 0.25, "p": 0.5, "regret": 0.02, "gain": 0.01, "gain_ci": None}
    own = {**CHOSEN, "difference": 0.01, "difference_ci": [0.0, 0.02], "select": select}
    other = {**own, "spearman": None, "difference": 0.03}
    assert tool.main(["choice", *seeded({"choice": own}, {"choice": other})]) == 0
    trained, selected = tables(capsys.readouterr().out)
    assert trained["spearman"] == [""], "a run has none"
    assert trained["difference"][0].startswith("0.0200 (")
    assert selected["regret"] == ["0.0200"], "the same in all runs"
    assert list(selected)[2:] == ["spearman", "p", "regret", "gain"]


def test_one_run_alone_has_no_interval(tool, seeded, capsys):
    assert tool.main(["choice", *seeded({"choice": {**CHOSEN, "select": {}}})]) == 0
    assert tables(capsys.readouterr().out)[0]["regret"] == ["0.0100"]


def test_what_the_tables_cannot_be_of_is_one_line(tool, seeded, compared_over_conditions, tmp_path, capsys):
    one, two = seeded({}, {})
    over = str(compared_over_conditions("over"))
    (tmp_path / "copy").mkdir()
    other = {"metric": {"name": "AP", "higher_is_better": True, "chance": 0.0}}
    for arguments, words in (
        (["conditions", one, two], f"conditions: the checkpoints of {one} have no conditions. Give runs whose have."),
        (["uncertainty", one], f"uncertainty: {one} has no figures but the metric. Set task.uncertainty."),
        (["storage", one], "population: has no networks. Give a run that still has its collection."),
        (["choice", one], f"choice: {one} has not measured its generated on training data. Set evaluate.train, in a"),
        (["choice", over], f"choice: {over} has not measured its generated on training data. Set evaluate.train, in a"),
        (["choice", one, over], "over conditions and"),
        (["choice", one, str(tmp_path / "copy")], "copy: is no run directory. Give the --work-dir of a run."),
        (["choice", one, one], "twice, expected different run directories. Leave one out."),
        (
            ["choice", *seeded({}, other, name="metric")],
            "runs: got those of accuracy and AP, expected one metric. Give runs that",
        ),
        (
            ["choice", *seeded({}, {"plugin": "generation"}, name="task")],
            "runs: got those of classification and generation, expected one plugin.",
        ),
    ):
        assert tool.main(arguments) == 2, arguments
        said = capsys.readouterr().err
        assert words in said
        assert len(said.strip().splitlines()) == 1
    with pytest.raises(SystemExit):
        tool.main(["choice", one, "--draw", "x.png"])
    assert "unrecognized arguments: --draw" in capsys.readouterr().err


def test_a_copy_of_a_run_is_not_taken_for_another_draw(tool, compared, capsys):
    runs = [str(compared(name, choice=CHOSEN)) for name in ("run", "copy")]
    assert tool.main(["choice", *runs]) == 2
    line = f"runs: got {runs[0]} and {runs[1]}, which are of one config, seed included, expected runs that differ"
    assert line in capsys.readouterr().err
