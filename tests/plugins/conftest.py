"""A tiny detector and a tiny segmentor on scenes of digits, a finished run of each, and what tests need of them."""

import copy
import gc
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import pytest
import torch
import yaml
from torch.nn import functional

from pdiff import Candidates, Conditions, Evaluation, Layout, Task
from pdiff.commands import export
from pdiff.run import Run
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.storage import read_json, read_tensors
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.testing.evaluating import difference

ROOT = Path(__file__).parents[2]
LIBRARIES = {"detection": "mmdet", "segmentation": "mmseg"}
# Without large augmentations and with all detections kept, it finds some digits after forty steps.
DETECTOR_TRAIN = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackDetInputs"},
]
DETECTOR_TEST = {"1": {"scale": [64, 64]}}
DETECTOR = {
    "plugin": "detection",
    "device": "cpu",
    "select": "head",
    "task": {
        "model": {
            "config": "pdiff_plugins.detection::fcos_r18_digits",
            "options": {
                "model": {
                    "backbone": {"base_channels": 8, "stem_channels": 8},
                    "neck": {"in_channels": [16, 32], "out_channels": 16},
                    "bbox_head": {"in_channels": 16, "feat_channels": 16, "norm_cfg": {"num_groups": 4}},
                    "test_cfg": {"score_thr": 0.0},
                },
                "train_cfg": {"max_iters": 40, "val_interval": 40},
                "param_scheduler": [],
                "optim_wrapper": {"optimizer": {"lr": 0.01}},
                # mmengine collects all garbage of the process before it serialises a data set, which takes its time.
                **{
                    f"{split}_dataloader": {"batch_size": 4, "dataset": {"serialize_data": False, "pipeline": pipeline}}
                    for split, pipeline in (("train", DETECTOR_TRAIN), ("val", DETECTOR_TEST), ("test", DETECTOR_TEST))
                },
            },
        },
        "data": {"scenes": {"train": 16, "select": 6, "test": 8, "size": 64}},
        "score_threshold": 0.05,
    },
    "collect": {
        "train": {"enabled": True},
        "finetune": {"steps": 6, "optimizer": {"type": "AdamW", "lr": 0.003}},
    },
    "engine": {"denoiser": {"width": 16, "depth": 1}, "generator_training": {"steps": 20}},
    "generate": {"num": 4, "path": 1},
    "evaluate": {"num": 2, "sources": {"soup16": {"members": 3}}},
}
# Smaller than the network's input, so that the batches have padding, whose labels are ignored.
SEGMENTOR_TRAIN = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "RandomCrop", "crop_size": 56},
    {"type": "PhotoMetricDistortion"},
    {"type": "PackSegInputs"},
]
SEGMENTOR = {
    "plugin": "segmentation",
    "device": "cpu",
    "select": "head",
    "task": {
        "model": {
            "config": "pdiff_plugins.segmentation::fcn_r18_digits",
            "options": {
                "model": {
                    "data_preprocessor": {"size": [64, 64]},
                    # A UNet of two stages in the place of the ResNet with its neck: it costs next to nothing.
                    "neck": None,
                    "auxiliary_head": None,
                    "backbone": {
                        "_delete_": True,
                        "type": "UNet",
                        "base_channels": 4,
                        "num_stages": 2,
                        "strides": [1, 1],
                        "enc_num_convs": [1, 1],
                        "dec_num_convs": [1],
                        "downsamples": [True],
                        "enc_dilations": [1, 1],
                        "dec_dilations": [1],
                    },
                    "decode_head": {
                        "in_channels": 4,
                        "in_index": 1,
                        "channels": 4,
                        # So that not everything is background after ten steps.
                        "loss_decode": {"class_weight": [0.02] + [1.0] * 10},
                    },
                },
                "train_cfg": {"max_iters": 10, "val_interval": 10},
                "param_scheduler": [],
                "optim_wrapper": {"optimizer": {"lr": 0.03}},
                "train_dataloader": {
                    "batch_size": 4,
                    "dataset": {"serialize_data": False, "pipeline": SEGMENTOR_TRAIN},
                },
                # mmengine collects all garbage of the process before it serialises a data set: half a second.
                "val_dataloader": {"batch_size": 2, "dataset": {"serialize_data": False}},
                "test_dataloader": {"batch_size": 2, "dataset": {"serialize_data": False}},
            },
        },
        "data": {"scenes": {"train": 8, "select": 4, "test": 4, "size": 64}},
        "signature_pixels": 1000,
    },
    "collect": {
        "train": {"enabled": True},
        "finetune": {"steps": 5, "optimizer": {"type": "AdamW", "lr": 0.03}},
    },
    "engine": {"denoiser": {"width": 16, "depth": 1}, "generator_training": {"steps": 20}},
    "generate": {"num": 3, "path": 1},
    "evaluate": {"num": 2, "sources": {"soup16": {"members": 3}}},
}
TINY = {"detection": DETECTOR, "segmentation": SEGMENTOR}
SHORT = {"task.model.options.train_cfg.max_iters": 1, "collect.finetune.steps": 1}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the scenes out of everybody's home; matplotlib's list of fonts, which takes seconds to make, stays there."""
    fonts = matplotlib.get_cachedir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MPLCONFIGDIR", fonts)
        yield


class Case:
    """A tiny network of one of the plugins: its config, a finished run of it, and candidates for its network.

    Args:
        plugin: `detection` or `segmentation`.
        folder: for the run.
    """

    def __init__(self, plugin: str, folder: Path):
        from pdiff_plugins.openmmlab.libraries import LIBRARIES as LOADED

        self.plugin, self.folder = plugin, folder
        self.hook = load_plugin(plugin).hook
        self.library = LOADED[LIBRARIES[plugin]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # imports warn about what they import
            self.library.load()
        gc.freeze()  # see `pytest_collection_finish`

    def values(self) -> dict:
        """Return the values of the config, to be changed at will."""
        return copy.deepcopy(TINY[self.plugin])

    @cached_property
    def run(self) -> RunDirectory:
        """A finished run; not to be changed."""
        directory = RunDirectory(self.folder / self.plugin)
        run_pipeline(resolve(self.values()), directory, gates=False)
        return directory

    @cached_property
    def task(self) -> Task:
        """The task of the finished run, its network trained."""
        return Run(resolve(self.run.config()), self.run).task

    def as_trained(self) -> "Case":
        """Return this, the network as it was trained, whatever a test put into it."""
        if "task" in self.__dict__:
            self.task.model.load_state_dict(read_tensors(self.run.base))
        return self

    def summary(self) -> dict:
        """Return the summary of the finished run."""
        return read_json(self.run.path / "report" / "summary.json")

    def lines(self, file: str) -> list[dict]:
        """Return the JSON lines of a file of the finished run."""
        return [json.loads(line) for line in (self.run.path / file).read_text().splitlines()]

    def build(self, values: dict) -> Task:
        """Return the task of a config, its network as it is before any training."""
        return self.hook.build(cfg=resolve(values), folder=None)

    def candidates(self, selector: str = "head", task: Task | None = None, count: int = 4) -> Candidates:
        """Return a part of a network, that of the finished run unless told, with more and more noise in it."""
        task = task or self.task
        layout = Layout.of(
            task.model.state_dict(), self.hook.select_params(task=task, cfg=resolve({"select": selector}))
        )
        noise = torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))
        noise *= torch.arange(count)[:, None] * 0.1
        return Candidates(layout.flatten(task.model.state_dict()) + noise, layout, self.hook.load_params)

    def evaluate(self, candidates: Candidates, split: str = "test", task: Task | None = None) -> list[Evaluation]:
        """Return what `evaluate` yields."""
        return list(self.hook.evaluate(task=task or self.task, candidates=candidates, split=split, ensembles=[]))

    def together(self, *ensembles: Candidates, task: Task | None = None) -> list[Evaluation]:
        """Return what `evaluate` yields of ensembles alone."""
        given = {"candidates": ensembles[0].take(slice(0)), "split": "test", "ensembles": ensembles}
        return list(self.hook.evaluate(task=task or self.task, **given))

    def assert_together_as_alone(self, candidates: Candidates, split: str = "test", task: Task | None = None) -> None:
        """Assert that candidates side by side are evaluated as each alone, and that they differ."""
        together = self.evaluate(candidates, split, task)
        alone = [self.evaluate(candidates.take([index]), split, task)[0] for index in range(len(candidates))]
        self.assert_same(together, alone)
        assert len({tuple(result.signature.tolist()) for result in together}) > 1

    @staticmethod
    def assert_same(ones: Sequence[Evaluation], others: Sequence[Evaluation]) -> None:
        """Assert that evaluations are equal bit for bit."""
        for one, other in zip(ones, others, strict=True):
            assert difference(one, other) == ""


@pytest.fixture(scope="session")
def cases(tmp_path_factory, own_cache):
    """Return a function from the name of a plugin to its case, the same each time."""
    made: dict[str, Case] = {}

    def case(plugin: str) -> Case:
        pytest.importorskip(LIBRARIES[plugin])
        if plugin not in made:
            made[plugin] = Case(plugin, tmp_path_factory.mktemp("runs"))
        return made[plugin].as_trained()

    return case


@pytest.fixture(params=LIBRARIES)
def case(request, cases) -> Case:
    """The case of each plugin in turn."""
    return cases(request.param)


@pytest.fixture
def detector(cases) -> Case:
    """The case of detection."""
    return cases("detection")


@pytest.fixture
def segmentor(cases) -> Case:
    """The case of segmentation."""
    return cases("segmentation")


@pytest.fixture
def losses_of_the_cpu(cases, monkeypatch):
    """Let mmdet compute its focal loss on a GPU as on a CPU; otherwise it goes another way, to other last digits."""
    if find_spec("mmdet") is None:
        return
    cases("detection")  # loads mmdet with what it needs of mmcv
    from mmdet.models.losses import focal_loss

    def loss(pred, target, *args, **kwargs):
        target = functional.one_hot(target, pred.size(1) + 1)[:, : pred.size(1)]
        return focal_loss.py_sigmoid_focal_loss(pred, target, *args, **kwargs)

    monkeypatch.setattr(focal_loss, "sigmoid_focal_loss", loss)


@pytest.fixture
def calls():
    """Return a function that lists from now on, until the test ends, every call in which a module computes."""
    handles = []

    def watch(module) -> list:
        computed = []
        handles.append(module.register_forward_hook(lambda *_: computed.append(module)))
        return computed

    yield watch
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="session")
def exported(cases, tmp_path_factory):
    """Return a function from a plugin to the path where the tool has written its best generated candidate."""
    folder = tmp_path_factory.mktemp("exported")

    def path(plugin: str) -> Path:
        path = folder / f"{plugin}.pth"
        if not path.exists():
            assert export.main([str(cases(plugin).run.path), "-o", str(path)]) == 0
        return path

    return path


def put(values: dict, path: list[str], value) -> None:
    """Put a value at a place in nested sections."""
    *above, last = path
    for key in above:
        values = values.setdefault(key, {})
    values[last] = value


@pytest.fixture
def refused(tmp_path, call):
    """Return a function that runs the command on a tiny config with other values, and returns the line it ends with."""

    def run(case: Case, over: dict, early: bool = True) -> str:
        values = case.values()
        for path, value in {**SHORT, **over}.items():
            put(values, path.split("."), value)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
        arguments = ["--config", str(tmp_path / "config.yaml"), "--work-dir", str(tmp_path / "run")]
        done = call("run", *arguments, "--stage", "collect")
        line = done.err.strip()
        assert done.code == 2, line
        assert len(line.splitlines()) == 1
        assert line.startswith("error: ")
        assert not (early and (tmp_path / "run" / "population" / "logs").exists()), "no training has begun"
        return line

    return run


@pytest.fixture
def conditions_of():
    """Return a function to a kind of condition: a number for each class, or one that says which images.

    Args of the function: the names of the numbers; the label of the background, if there is one; `rows`, from the first
    number of a condition to its images.
    """
    from pdiff_plugins.openmmlab.conditions import Kind

    class Given(Kind):
        def __init__(self, names: Sequence[str], background: int | None = None, rows: dict | None = None):
            self.background, self.images = background, rows
            self.table = Conditions(names, torch.eye(len(names)))

        def __len__(self):
            return len(self.table)

        def bind(self, datasets, counts=None):
            """Need nothing of the data."""

        def labels(self, values):
            places = [place for place in range(len(values) + 1) if place != self.background]
            return None if self.images else [places[number] for number in values.nonzero().flatten().tolist()]

        def rows(self, dataset, values):
            return self.images[int(values[0])] if self.images else None

    return Given


@pytest.fixture
def under(conditions_of):
    """Return a function that puts a task under such conditions."""

    def put(task: Task, *args, **kwargs) -> Task:
        kind = conditions_of(*args, **kwargs)
        splits = {
            name: replace(data, kind=kind) if name == "train" else replace(data, split=replace(data.split, kind=kind))
            for name, data in task.splits.items()
        }
        return replace(task, splits=splits)

    return put


@pytest.fixture
def wanting():
    """Return a function that says what candidates are for: names, and a row of numbers for each."""

    def conditioned(candidates: Candidates, names, values) -> Candidates:
        table = Conditions(tuple(names), torch.tensor(values).float())
        return Candidates(candidates.vectors, candidates.layout, candidates.load_params, table)

    return conditioned
