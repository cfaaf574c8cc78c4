"""A plan is a rehearsal: the stages of the run in a scratch directory, at the run's own N, P, L and M.

What a run repeats is done a few times, timed, and multiplied: steps of the two trainings, steps of the sampler, units
of the collection (the plugin's `plan` hook says which), and candidates of the plugin's `evaluate`. The rest
(closed-form parts, sources, files, figures) is done once as it is, on vectors that are the network's own with noise.

So is memory: batches, population and candidates have their real sizes, and the peak of a stage is the one that
`pdiff.runtime.cost` finds. Left out is what a plugin keeps of each further candidate until it has evaluated all.
"""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.schedule import build_sampler
from pdiff.plan.growth import line, repeated, seconds
from pdiff.plan.limits import Limits, check_disk, existing_parent, within_memory
from pdiff.plan.prediction import Plan, StagePlan
from pdiff.plan.stand_in import StandIn
from pdiff.run.directory import STAGES, RunDirectory
from pdiff.run.run import Run, load_network
from pdiff.runtime.cost import measured
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import explain_write_errors, write_json, write_tensors
from pdiff.stages.pipeline import perform
from pdiff.task.contract import check_iterable, check_work
from pdiff.task.task import Work
from pdiff.weights.checkpoints import find_checkpoints, load_state_dict
from pdiff.weights.population import Population, write_population
from pdiff.weights.vectors import Made

FEW = 2  # steps of a rehearsed training or sampler
MOST = 128  # steps that are done to tell what one costs
ROWS = 8  # vectors of the rehearsed collection
ASSUMED = 300  # N where nobody says it; the published one
NOISE = 1e-3  # standard deviation of the noise on the network's own weights


def make_plan(config: Config, work_dir: Path, limits: Limits) -> Plan:
    """Return what a run would cost; nothing is left on disk.

    Args:
        config: the resolved config.
        work_dir: where the run directory would be; the scratch directory lies beside it while the rehearsal lasts.
        limits: what the run may use.

    Raises:
        PdiffError: the run could not begin, or its population or a batch does not fit into memory.
    """
    with scratch_directory(work_dir) as folder:
        return Rehearsal(config, folder, limits).plan()


@contextmanager
def scratch_directory(work_dir: Path) -> Iterator[Path]:
    """Make a directory for the block, on the disk of `work_dir`."""
    place = existing_parent(work_dir)
    with explain_write_errors(place):
        scratch = tempfile.TemporaryDirectory(prefix=".plan-", dir=place)
    with scratch as folder:
        yield Path(folder)


def shortened(config: Config) -> Config:
    """Return the config of the rehearsal: few steps, and no files to read."""
    values = copy.deepcopy(config.to_dict())
    values["checkpoints"]["files"] = None
    for part in ("autoencoder", "denoiser"):
        training = values["engine"][f"{part}_training"]
        training["steps"] = min(training["steps"], FEW)
    sampler = values["generate"]["sampler"] or values["engine"]["sampler"]
    steps = min(FEW, sampler.get("steps") or FEW, values["engine"]["noise_schedule"]["timesteps"])
    values["generate"]["sampler"] = {**sampler, "steps": steps}
    return Config(values)


def stored(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Rehearsal:
    """A short run in a directory of its own.

    Args:
        config: the resolved config of the run.
        folder: the directory.
        limits: what the run may use.
    """

    def __init__(self, config: Config, folder: Path, limits: Limits):
        self.config, self.folder, self.limits = config, folder, limits
        self.run = Run(shortened(config), RunDirectory(folder / "run"))
        self.notes: list[str] = []

    def plan(self) -> Plan:
        """Rehearse every stage."""
        directory = self.run.directory
        directory.prepare(self.run.config.to_dict(), STAGES, resume=False, overwrite=False)
        write_json(directory.path / "environment.json", environment(self.run.device))
        stages = [self.collect()]
        stages.append(self.stage("fit", self.training_seconds))
        stages.append(self.stage("generate", self.sampling_seconds))
        self.stand_in.counts.clear()
        stages.append(self.stage("evaluate"))
        candidates = max(map(sum, self.stand_in.counts.values()))
        stages.append(self.stage("compare"))
        latent = self.run.engine.autoencoder.latent
        size, checkpoints = self.run.layout.size, len(self.run.population)
        return Plan(size, checkpoints, latent, candidates, tuple(stages), tuple(self.notes))

    def stage(self, name: str, left_out=lambda: 0.0) -> StagePlan:
        """Rehearse one stage.

        Args:
            name: of the stage.
            left_out: returns the seconds of the repetitions that the rehearsal leaves out.
        """
        self.stand_in.owed = 0.0
        with measured() as cost, self.within_memory(name):
            perform(self.run, name)
        return self.finish(name, cost, cost["seconds"] + self.stand_in.owed + left_out())

    def within_memory(self, name: str):
        """Return a context that refuses a stage which gets no more memory."""
        return within_memory(name, self.limits, self.config, self.run.device)

    def finish(self, name: str, cost: dict, whole: float | None) -> StagePlan:
        """Record a stage as a run does, and return what it will cost."""
        directory = self.run.directory
        directory.finish(name, cost)
        disk = stored(directory.folder(name)) + (directory.base.stat().st_size if name == "collect" else 0)
        return StagePlan(name, whole, cost["peak_memory_bytes"], disk)

    def collect(self) -> StagePlan:
        """Build the task, do a few units of each part of the collection, and make up a population."""
        run = self.run
        with measured() as cost, self.within_memory("collect"):
            build = seconds(lambda: run.layout)
            work, checkpoints = self.reading() if self.config.checkpoints.files else self.working()
            check_disk(4 * run.layout.size * (checkpoints + self.config.generate.num), self.limits)  # the vectors alone
            own = run.layout.flatten(run.task.model.state_dict())
            rows = min(ROWS, checkpoints)
            self.stand_in = StandIn(run.plugin, run.layout, disturbed(own, rows)[:])
            frame = seconds(lambda: perform(run, "collect")) + self.stand_in.owed
            more = (checkpoints - rows) * self.append_seconds(own)
        run.__dict__.pop("population", None)  # which somebody may have opened while it had few rows
        with self.within_memory("fit"):
            write_population(run.directory.folder("collect"), run.layout, disturbed(own, checkpoints))
        return self.finish("collect", cost, None if work is None else build + work + frame + more)

    def reading(self) -> tuple[float, int]:
        """Return the seconds of reading the checkpoints that the user has, and their number; take up one of them."""
        settings = self.config.checkpoints
        files = find_checkpoints(settings.files)
        remaining = iter(files)

        def read() -> None:
            file = next(remaining)
            self.run.layout.flatten(load_state_dict(file, settings.prefix), str(file))

        took = repeated(read, len(files))
        base = Path(settings.base or files[0])
        found, own = load_state_dict(base, settings.prefix), self.run.task.model.state_dict()
        load_network(self.run.task, {name: found.get(name, tensor) for name, tensor in own.items()}, base)
        return took, len(files)

    def working(self) -> tuple[float | None, int]:
        """Return the seconds of the plugin's collection, None where it does not say, and the number of snapshots."""
        if not self.run.has_hook("plan"):
            line = f"The plugin {self.run.name} has no plan hook: the time of collect is not known, and N is"
            self.notes.append(f"{line} taken as {ASSUMED}.")
            return None, ASSUMED
        parts = self.run.hook.plan(task=self.run.task, names=self.run.layout.names, cfg=self.config)
        check_iterable(self.run.name, "plan", parts, Work)
        total, snapshots = 0.0, 0
        for work in parts:
            check_work(self.run.name, work)
            total += repeated(lambda work=work: self.unit(work), work.units)
            snapshots += work.snapshots
        if snapshots < 2:
            raise PdiffError(f"plan: got a collection of {snapshots} snapshots, expected 2 at least. Change collect.")
        return total, snapshots

    def unit(self, work: Work) -> None:
        """Do one unit, and write the state that it ends with."""
        snapshot = work.unit()
        if snapshot is not None and snapshot.state is not None:
            write_tensors(self.folder / "state.safetensors", dict(snapshot.state))

    def append_seconds(self, vector: Tensor) -> float:
        """Return the seconds of adding one vector to a population."""
        population = Population.create(self.folder / "appended", self.run.layout)
        return seconds(lambda: [population.append(vector, {"step": step}) for step in range(ROWS)]) / ROWS

    def training_seconds(self) -> float:
        """Return the seconds of the training steps that the rehearsal left out."""
        vectors = self.run.population.tensor().to(self.run.device)
        engine = ParameterDiffusion(self.config.engine.to_dict(), device=str(self.run.device))
        engine.build(self.run.layout)
        latents = torch.randn(len(vectors), engine.autoencoder.latent, device=self.run.device)
        part, rows = engine.fit_closed_form(vectors)
        codec = self.step_seconds(engine, "autoencoder", lambda: engine.train_codec(part, rows, None))
        return codec + self.step_seconds(engine, "denoiser", lambda: engine.fit_diffusion(latents, None))

    def step_seconds(self, engine: ParameterDiffusion, part: str, fit) -> float:
        """Return the seconds of the steps of one training that the rehearsal left out."""
        training = engine.config[f"{part}_training"]
        steps = training["steps"]

        def train(count: int) -> None:
            training["steps"] = count
            fit()

        return line(train, FEW, MOST).each * (steps - FEW) if steps > FEW else 0.0

    def sampling_seconds(self) -> float:
        """Return the seconds of the sampler's steps that the rehearsal left out."""
        engine, settings = self.run.engine, self.config.generate
        sampler = dict(settings.sampler or engine.config["sampler"])
        steps = len(build_sampler(sampler, engine.schedule).timesteps)

        def sample(count: int) -> None:
            engine.sample_latents(settings.num, 0, settings.batch_size, {**sampler, "steps": count})

        return line(sample, FEW, min(steps, MOST)).each * (steps - FEW) if steps > FEW else 0.0


def disturbed(vector: Tensor, rows: int) -> Made:
    """Return `(rows, P)`: a vector `(P,)` with noise, another one in each row."""

    def make(place: slice, rng: torch.Generator) -> Tensor:
        return vector + NOISE * torch.randn(place.stop - place.start, len(vector), generator=rng)

    return Made([rows, len(vector)], make, torch.Generator().manual_seed(0))
