"""A real run that takes seconds: a tiny timm network on digits, all stages, all sources."""

from pathlib import Path

import pytest
import yaml

from pdiff.config import resolve
from pdiff.pipeline import run_pipeline
from pdiff.rundir import RunDirectory
from pdiff.storage import write_json

TINY = {
    "plugin": "classification",
    "select": "last_norms(2)",
    "task": {
        "network": {"type": "timm", "name": "test_resnet"},
        "data": {"type": "digits", "size": 32, "noise": 0.1, "train": 64, "select": 64},
        "eval_batch": 900,
    },
    "collect": {
        "train": {"epochs": 2, "batch_size": 32, "augment": [{"type": "shift"}]},
        "finetune": {"steps": 10, "batch_size": 32, "augment": [{"type": "noise", "std": 0.1}]},
    },
    "engine": {"denoiser": {"width": 16, "depth": 1}, "denoiser_training": {"steps": 20}},
    "generate": {"num": 5, "path": 2},
    "evaluate": {"num": 4, "sources": {"soup16": {"members": 3}}},
    "compare": {"resamples": 50},
}


@pytest.fixture
def empty_plugin() -> str:
    """The code of a plugin whose hooks do nothing."""
    hooks = ("build(cfg)", "evaluate(task)")
    return "import pdiff\n" + "".join(f"\n@pdiff.hookimpl\ndef {hook}:\n    pass\n" for hook in hooks)


@pytest.fixture
def tiny() -> dict:
    """The values of the tiny config, to be changed at will."""
    return yaml.safe_load(yaml.safe_dump(TINY))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> RunDirectory:
    """A finished tiny run; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "finished")
    run_pipeline(resolve(TINY), directory, gates=False)
    return directory


@pytest.fixture
def compared(tmp_path):
    """Return a function that writes a run directory with nothing but a summary, which may be changed before."""

    def write(name: str, **changes) -> Path:
        figures = {"difference": 0.01, "ci": [0.0, 0.02], "superiority": 0.6, "p": 0.04, "p_adjusted": 0.08}
        summary = {
            "plugin": "classification",
            "metric": {"name": "accuracy", "higher_is_better": True, "chance": 0.1},
            "verdict": "average-like: as good as <soup>",
            "verdict_kind": "average-like",
            "gates": [{"stage": "fit", "name": "codec", "passed": False, "line": "codec: too small", "figures": {}}],
            "sources": {
                "trained": {"mean": 0.5, "similarity": 0.99},
                "generated": {"mean": 0.51, "similarity": 0.95},
                "soup": {"mean": 0.52, "similarity": None},
            },
            "comparisons": {"trained": figures, "soup": {**figures, "difference": -0.01, "ci": [-0.015, -0.005]}},
            "seconds": {"collect": 30.0, "fit": 10.0, "generate": 1.0, "evaluate": 20.0, "compare": 5.0},
            **changes,
        }
        write_json(tmp_path / name / "report" / "summary.json", summary)
        (tmp_path / name / "config.yaml").write_text("plugin: classification\n")
        return tmp_path / name

    return write


@pytest.fixture
def results():
    """Return what a run computed: its bytes by file, without times and logs."""

    def read(path: Path) -> dict[str, bytes]:
        folders = ("population", "engine", "samples", "evaluation")
        files = [f for name in folders for f in (path / name).rglob("*") if f.is_file() and "logs" not in f.parts]
        files = [f for f in [*files, path / "base.safetensors"] if f.suffix != ".part"]
        return {str(f.relative_to(path)): f.read_bytes() for f in files}

    return read
