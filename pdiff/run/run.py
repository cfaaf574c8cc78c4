"""A run: config, directory, plugin and task, as every stage gets them."""

import importlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor

from pdiff.canonical.form import Form
from pdiff.engine.hypernet import Hypernet
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.run.directory import RunDirectory
from pdiff.runtime.cost import Stopwatch
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.exact import exact, prepare
from pdiff.runtime.seeding import derive_seed, resolve_device
from pdiff.runtime.settings import at_home
from pdiff.runtime.storage import read_json, read_tensors
from pdiff.task.contract import check_names, check_task
from pdiff.task.plugins import load_plugin, plugin_name, takes_ensembles
from pdiff.task.task import Candidates, Task
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population
from pdiff.weights.provenance import lineage_labels
from pdiff.weights.roles import free_names
from pdiff.weights.ties import first_names
from pdiff.weights.vectors import Vectors


class Run:
    """What a stage works with; each thing is made or read when a stage first asks for it.

    Args:
        config: the resolved config; what it names by `~` is looked for in the folder of the user who runs it.
        directory: where the stages read and write.

    Attributes:
        stopwatch: measures the stage that is being run.
    """

    def __init__(self, config: Config, directory: RunDirectory):
        self.config = Config(at_home(config.to_dict()))
        self.directory = directory
        check_opencv()
        self.device = resolve_device(config.device)
        prepare(self.device)
        self.stopwatch = Stopwatch(self.device)
        self.plugin = load_plugin(config.plugin)

    @property
    def hook(self) -> Any:
        """The hooks of the plugin."""
        return self.plugin.hook

    @cached_property
    def built(self) -> Task:
        """The plugin's task as `build` returned it; what the collection trains."""
        with exact(self.device):  # a plugin may train what it measures with
            task = self.hook.build(cfg=self.config, folder=self.directory.folder("collect") / "task")
        check_task(self.name, task)
        return task

    @cached_property
    def task(self) -> Task:
        """The task with the frozen network of the collection in it, which is what candidates are put into.

        Raises:
            PdiffError: nothing is collected yet, or the network on disk does not fit.
        """
        self.load_base()
        return self.built

    def load_base(self) -> None:
        """Put the frozen network on disk, every tensor of it, into the built task."""
        path = self.directory.base
        try:
            self.built.model.load_state_dict(read_tensors(path))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise PdiffError(f"{path}: does not fit the network ({reason}). Check task in the config.") from None

    @property
    def name(self) -> str:
        """The plugin's name."""
        return plugin_name(self.config.plugin)

    @property
    def origin(self) -> dict[str, Any]:
        """What the provenance of every vector of this run begins with."""
        return {"run": {"plugin": self.name, "seed": self.config.seed}}

    @cached_property
    def selected(self) -> tuple[str, ...]:
        """The names of the selection, tied tensors under the first of theirs."""
        names = self.hook.select_params(task=self.built, cfg=self.config)
        check_names(self.name, names, self.built.model)
        first = first_names(self.built.model)
        return tuple(dict.fromkeys(first[name] for name in names))

    @cached_property
    def layout(self) -> Layout:
        """The layout of the selection, but for its counters, which have no place in a vector."""
        state = self.built.model.state_dict()
        names = free_names(state, self.selected)
        if not names:
            raise PdiffError(f"select: got {self.config.select!r}, which selects counters alone. Select a parameter.")
        return Layout.of(state, names)

    @cached_property
    def collected(self) -> Population:
        """The population as it was collected or brought."""
        return Population.open(self.directory.folder("collect"))

    @cached_property
    def population(self) -> Population:
        """The population that is learnt and compared with: in canonical form where the config asks for one.

        Its rows are those of `collected`, with the same provenance.
        """
        return self.collected if self.config.fit.canonical == "none" else Population.open(self.canonical_folder)

    @property
    def canonical_folder(self) -> Path:
        """The folder of the population in canonical form, and of the form."""
        return self.directory.folder("collect") / "canonical"

    @cached_property
    def form(self) -> Form | None:
        """What brings vectors into canonical form; None where the config asks for none."""
        if self.config.fit.canonical == "none":
            return None
        return Form.load(self.canonical_folder, self.layout)

    @cached_property
    def lineages(self) -> NDArray[np.int_]:
        """The number of each row's initialisation `(N,)`."""
        return lineage_labels(self.collected.provenance)

    @cached_property
    def conditional(self) -> bool:
        """Whether the checkpoints have conditions."""
        return self.collected.conditions is not None

    @property
    def targeted(self) -> bool:
        """Whether the engine is conditioned on figures of the checkpoints (`fit.conditions`)."""
        return self.config.fit.conditions is not None

    def new_engine(self, number: int = 0) -> ParameterDiffusion:
        """Return the engine of the config, not yet fitted; raise a `PdiffError` for settings that cannot be.

        Args:
            number: of the fit, from which its seed follows.
        """
        seed = self.fit_seed(number, "engine")
        engine = ParameterDiffusion(self.config.engine.to_dict(), seed=seed, device=str(self.device))
        asked = self.config.generate  # what cannot be drawn with is better told before the fit
        if asked.sampler:
            engine.check_drawing(asked.sampler, where="generate.sampler")
        engine.check_drawing(engine.config["sampler"], asked.guidance)
        return engine

    def engine_folder(self, number: int) -> Path:
        """Return the folder of the engine of a fit: the first one's, and in it those of the others."""
        folder = self.directory.folder("fit")
        return folder / "repeats" / str(number) if number else folder

    @cached_property
    def engine(self) -> ParameterDiffusion:
        """The fitted engine; of several fits the first."""
        return ParameterDiffusion.load(self.engine_folder(0), str(self.device))

    @cached_property
    def hypernet(self) -> Hypernet:
        """The fitted hypernetwork; raise a `PdiffError` where the config has none (`fit.hypernet`)."""
        if self.config.fit.hypernet is None:
            raise PdiffError("fit.hypernet: got null, expected settings. Set it, {} for the defaults, and fit again.")
        return Hypernet.load(self.hypernet_folder, self.engine, str(self.device))

    @property
    def hypernet_folder(self) -> Path:
        """The folder of the hypernetwork."""
        return self.engine_folder(0) / "hypernet"

    @cached_property
    def engines(self) -> list[ParameterDiffusion]:
        """The engines of all fits (`fit.repeats`), `engine` first."""
        folders = map(self.engine_folder, range(1, self.config.fit.repeats))
        return [self.engine, *(ParameterDiffusion.load(folder, str(self.device)) for folder in folders)]

    @cached_property
    def generated(self) -> Tensor:
        """The vectors that the engine drew `(M, P)`."""
        return read_tensors(self.directory.folder("generate") / "vectors.safetensors")["vectors"]

    @cached_property
    def fits(self) -> list[int]:
        """The number of the fit that each generated vector was drawn from, M of them."""
        description = read_json(self.directory.folder("generate") / "samples.json")
        return description.get("fits", [0] * description["num"])

    @cached_property
    def generated_for(self) -> list[int]:
        """Which of the wanted conditions each generated vector was drawn for, M of them, in a run with conditions."""
        return read_json(self.directory.folder("generate") / "samples.json")["wanted"]

    @property
    def drawing(self) -> dict[str, Any]:
        """What is drawn with: arguments of the engine's `sample_latents`."""
        settings = self.config.generate
        own = {"batch_size": settings.batch_size, "sampler": settings.sampler or self.engine.config["sampler"]}
        return {**own, "guidance": settings.guidance} if self.conditional or self.targeted else own

    @property
    def draws_path(self) -> bool:
        """Whether the way of a few samples from noise to latents is drawn and measured."""
        return self.config.generate.path > 0 and not self.conditional and self.engine.process is not None

    def has_hook(self, name: str) -> bool:
        """Say whether the plugin, or the core for it, implements a hook."""
        return bool(getattr(self.hook, name).get_hookimpls())

    @property
    def ensembles_in_evaluate(self) -> bool:
        """Whether the plugin's `evaluate` measures ensembles, too, in one pass with the candidates."""
        return takes_ensembles(self.plugin)

    @property
    def measures_ensembles(self) -> bool:
        """Whether the plugin measures ensembles."""
        return self.ensembles_in_evaluate or self.has_hook("ensemble")

    def candidates(self, vectors: Vectors, conditions: Conditions | None = None) -> Candidates:
        """Return vectors `(M, P)`, for M conditions where there are any, as candidates for the plugin's `evaluate`."""
        return Candidates(vectors, self.collected.layout, self.hook.load_params, conditions)

    @property
    def later_seed(self) -> int:
        """The seed of all that pdiff draws behind the collection and the split: `fit.seed`, or that of the run."""
        return self.config.seed if self.config.fit.seed is None else self.config.fit.seed

    def seed(self, *names: object) -> int:
        """Return the seed of a part of the run behind the collection."""
        return derive_seed(self.later_seed, *names)

    def fit_seed(self, number: int, *names: object) -> int:
        """Return the seed of a part of one fit; of the first fit that of the same part of the run."""
        return self.seed(*names, number) if number else self.seed(*names)


def check_opencv() -> None:
    """Raise a `PdiffError` when OpenCV, which mmengine imports, cannot load, as without a screen's libraries."""
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        raise PdiffError(
            f"OpenCV cannot be loaded ({error}). Run: pip install --force-reinstall --no-deps opencv-python-headless, "
            "or install the system library it names (libGL.so.1: apt install libgl1)."
        ) from None
