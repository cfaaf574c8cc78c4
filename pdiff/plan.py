"""What a run needs, by arithmetic: P, N, L, M, bytes on disk, memory by stage. Time is what the progress bars show.

Nothing is trained or collected: the task is built, the engine's parts are made without memory (torch's meta device).
Memory is a lower bound: what weights, gradients, optimiser, one batch and one block of vectors hold. A population on
disk is mapped and read as needed, so it counts where a GPU holds it, and elsewhere as the block that is looked at;
what the network does with its batches is the plugin's business. Host and GPU are two limits, and never added.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from pdiff.engine.decoder import trained
from pdiff.engine.hypernet import FromConditions
from pdiff.engine.intake import SHARE as OF_POPULATION
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.files.members import find_members
from pdiff.run.derived import count_of, root
from pdiff.run.directory import RunDirectory
from pdiff.run.fit_through_losses import check_behaving, check_hypernet
from pdiff.run.measuring import SHARE as OF_CANDIDATES
from pdiff.run.refining import TOGETHER
from pdiff.run.run import Run
from pdiff.run.sources import check_sources, possible, tell_members
from pdiff.run.splits import check_conditions, split_conditions
from pdiff.run.stage import STAGES
from pdiff.run.symmetry import build_symmetry
from pdiff.run.units import check_canonical
from pdiff.runtime.cost import free_memory, resident_memory
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.memory import in_words
from pdiff.runtime.seeding import generator
from pdiff.weights.conditions import Conditions
from pdiff.weights.population import Population
from pdiff.weights.vectors import VALUES

FLOAT = 4  # bytes
TRAINED = 4  # copies of weights that are trained: themselves, gradients, two moments of AdamW
ASSUMED = 300  # N where nobody says it; the published one
ASSUMPTION = (
    f"N is taken as {ASSUMED}, without conditions: only the collection itself knows how many snapshots it yields."
)
NOT_COUNTED = "What is kept of each candidate, its mistakes sample by sample, is not counted."


@dataclass(frozen=True)
class StagePlan:
    """What one stage needs at least, in bytes.

    Attributes:
        name: of the stage.
        host: resident memory of the process.
        gpu: memory of the GPU, beside what others have of it; 0 without one.
        disk: what it leaves in the run directory.
    """

    name: str
    host: int
    gpu: int
    disk: int


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        parameters: P.
        checkpoints: N.
        latent: L.
        generated: M.
        candidates: of all sources together.
        stages: in their order.
        notes: what is assumed.
    """

    parameters: int
    checkpoints: int
    latent: int
    generated: int
    candidates: int
    stages: Sequence[StagePlan]
    notes: Sequence[str] = ()


def make_plan(config: Config, work_dir: Path) -> Plan:
    """Return what a run of a config needs; nothing is left on disk.

    Args:
        config: the resolved config.
        work_dir: where the run directory is or would be; a population that is there already says N.

    Raises:
        PdiffError: the run could not begin.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, RunDirectory(Path(folder)))
        engine = run.new_engine()
        engine.prepare(run.layout, torch.device("meta"), len(config.fit.conditions or []))
        check_sources(run)
        check_conditions(config, run.layout)
        check_canonical(run)
        check_behaving(run)
        told = known_provenance(run, RunDirectory(work_dir))
        checkpoints = ASSUMED if told is None else len(told)
        wanted, oracles = count_wanted(run, told or [])
        check_hypernet(run, told is None or wanted > 0)
        if told is not None and not wanted:
            tell_members(run, checkpoints)
        counts = count_conditional(run, wanted, oracles) if wanted else count_candidates(run, checkpoints)
        refining = weigh_refining(run, config.evaluate.conditional if wanted else config.evaluate.sources, counts)
        path = 0 if wanted else config.generate.path
        return Plan(
            parameters=run.layout.size,
            checkpoints=checkpoints,
            latent=engine.autoencoder.latent,
            generated=counts["generated"],
            candidates=sum(counts.values()),
            stages=plan_stages(run, engine, checkpoints, counts, path, refining),
            notes=[*([ASSUMPTION] if told is None else []), NOT_COUNTED],
        )


def known_provenance(run: Run, directory: RunDirectory) -> Sequence[Mapping[str, Any]] | None:
    """Return what is known of each checkpoint, there or in the user's files; None where only the collection knows."""
    if "collect" in directory.records():
        return Population.open(directory.folder("collect")).provenance
    if run.config.checkpoints.files is None:
        wanted = run.built.conditions
        return None if wanted is None else [{"condition": condition} for condition in wanted]
    return find_members(run.config.checkpoints, run.built.model, run.layout.names)[1]


def count_wanted(run: Run, provenance: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return how many conditions are wanted, and of how many checkpoints; 0 where there are no conditions."""
    if not any(record.get("condition") for record in provenance):
        return 0, 0
    conditions = Conditions.of([record.get("condition") for record in provenance], "plan: checkpoints")
    symmetry, rng = build_symmetry(run.config.fit.symmetry, run.layout), generator(run.config.seed, "split")
    rows = split_conditions(run.config.fit.split, conditions, provenance, symmetry, rng)["rows"]
    return len(conditions.take(rows).distinct()[0]), len(rows)


def count_conditional(run: Run, wanted: int, oracles: int) -> dict[str, int]:
    """Return how many candidates each source has in a run with conditions: one for each wanted one, if not more."""
    table, config = run.config.evaluate.conditional, run.config
    default = {
        "oracle": oracles,
        "oracle_codec": oracles,
        "generated": wanted * config.generate.draws * config.fit.repeats,
    }
    return {name: default.get(root(table, name), wanted) for name in possible(run, table)}


def count_candidates(run: Run, checkpoints: int) -> dict[str, int]:
    """Return how many candidates each source has; see `count_of`."""
    table = run.config.evaluate.sources
    return {name: count_of(run, table, name, checkpoints) for name in possible(run, table)}


def plan_stages(
    run: Run,
    engine: ParameterDiffusion,
    checkpoints: int,
    counts: Mapping[str, int],
    path: int,
    refining: tuple[int, int],
) -> list[StagePlan]:
    """Return what each stage needs, where the engine's parts are made but not fitted.

    Args:
        run: the run.
        engine: its parts.
        checkpoints: N.
        counts: how many candidates each source has.
        path: of how many of the generated the way there is kept.
        refining: what candidates that are trained on need; see `weigh_refining`.
    """
    size, settings, block, drawn = run.layout.size, run.config.generate, FLOAT * VALUES, counts["generated"]
    network = weigh(run.built.model)
    population, batch = FLOAT * checkpoints * size, FLOAT * min(drawn, settings.batch_size) * size
    generated = FLOAT * (drawn + 8 * path) * size
    parts = sum(weigh(part) for part in engine.modules().values())
    behaving = weigh_behaving(run, engine)
    tuned, hypernet = (behaving.get(key, 0) for key in ("decoder", "hypernet"))
    engines = run.config.fit.repeats * (parts + tuned)
    fitted = engines + hypernet
    trainings = [
        weigh_codec_training(engine, size, checkpoints),
        weigh_training(engine.config["generator_training"], engine.generator, engine.autoencoder.latent),
    ]
    trainings += [weigh_behaving_training(run, key, weights) for key, weights in behaving.items()]
    training = parts + max(trainings)
    held = resident_memory()  # Python, torch and the task, built
    canonical = 0 if run.config.fit.canonical == "none" else population
    looked_at, compared = min(2 * block, 3 * population), min(4 * block, 3 * population)
    computing = {  # where the run computes
        "collect": TRAINED * network,
        "fit": max(training, engines + looked_at),
        "generate": engines + 2 * batch,
        "evaluate": 2 * network + max(2 * FLOAT * size, refining[0]),
        "compare": parts + compared,
    }
    disk = {"collect": population + network, "fit": fitted + canonical, "generate": generated, "evaluate": refining[1]}
    if run.device.type != "cuda":
        return [StagePlan(name, held + memory, 0, disk.get(name, 0)) for name, memory in computing.items()]
    free = torch.cuda.mem_get_info(run.device)[0]
    lent = {  # to the GPU beside: what is moved there whole where it fits, else some of it at a time
        "fit": population if population <= OF_POPULATION * free else min(block, population),
        "evaluate": min(FLOAT * size * sum(counts.values()), free // OF_CANDIDATES),
    }
    beside = {  # on the host: what is read, and what comes back
        "collect": network + FLOAT * size,
        "fit": min(2 * block, 2 * population),  # as it is read, and in page-locked memory
        "generate": batch,
        "evaluate": network + 2 * FLOAT * size,
        "compare": compared,
    }
    return [
        StagePlan(name, held + beside[name], memory + lent.get(name, 0), disk.get(name, 0))
        for name, memory in computing.items()
    ]


def weigh(module: nn.Module) -> int:
    """Return the bytes of a module's parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def weigh_training(settings: Mapping[str, Any], part: nn.Module, width: int) -> int:
    """Return the bytes that a training of a part holds beside its weights: gradients, moments, average, a batch."""
    weights = FLOAT * sum(parameter.numel() for parameter in part.parameters())
    if not settings["steps"] or not weights:
        return 0
    return (TRAINED - 1 + bool(settings["ema"])) * weights + 3 * FLOAT * settings["batch_size"] * width


def weigh_codec_training(engine: ParameterDiffusion, size: int, checkpoints: int) -> int:
    """Return the bytes that the training of the codec of vectors of so many values holds beside its weights.

    One that is trained on something else than the vectors, on their coordinates say, keeps that of all N.
    """
    values = engine.autoencoder.trained_values(size)
    weighed = weigh_training(engine.config["autoencoder_training"], engine.autoencoder, values)
    return weighed + (FLOAT * checkpoints * values if weighed and values != size else 0)


def weigh_refining(run: Run, table: Mapping[str, Mapping[str, Any]], counts: Mapping[str, int]) -> tuple[int, int]:
    """Return the bytes that candidates which are trained on need at once, without their passes, and those on disk."""
    vector, at_once, kept = FLOAT * run.layout.size, 0, 0
    for name in (name for name in counts if table[name]["type"] == "refined"):
        copies = TRAINED + 1 if table[name].get("space") == "weights" else 2
        at_once = max(at_once, copies * min(table[name].get("together", TOGETHER), counts[name]) * vector)
        kept += counts[name] * vector
    return at_once, kept


def weigh_behaving(run: Run, engine: ParameterDiffusion) -> dict[str, int]:
    """Return the bytes of what is trained through the losses of networks, by key of `fit`; the rest is the engine's."""
    settings = run.config.fit.hypernet
    if run.config.fit.decoder is None and settings is None:
        return {}
    decoder = trained(engine.autoencoder.trainable_decoder())
    weights = FLOAT * sum(parameter.numel() for parameter in decoder.values())
    found = {} if run.config.fit.decoder is None else {"decoder": weights}
    if settings is None:
        return found
    layers = FromConditions(1, engine.whitening, nn.Identity(), settings.width, settings.depth).layers
    linear = FLOAT * (engine.autoencoder.latent + 1) * run.layout.size
    return {**found, "hypernet": (linear if settings.begin == "base" else weights) + weigh(layers)}


def weigh_behaving_training(run: Run, key: str, weights: int) -> int:
    """Return the bytes that a training through losses holds beside the engine, without the passes of the networks.

    That is a decoder with gradients, moments and an average of its own, and a batch of vectors with gradients.
    """
    settings = run.config.fit[key]
    return (TRAINED + bool(settings.ema)) * weights + 2 * FLOAT * settings.batch_size * run.layout.size


def check_plan(plan: Plan, work_dir: Path, device: torch.device) -> None:
    """Raise a `PdiffError` that names what to change when a run exceeds the disk or the memory that are free now.

    Args:
        plan: of the run.
        work_dir: its directory.
        device: that it computes on.
    """
    existing = next(parent for parent in Path(work_dir).absolute().parents if parent.is_dir())
    free = shutil.disk_usage(existing).free
    needed = sum(stage.disk for stage in plan.stages)
    if needed > free:
        raise PdiffError(
            f"plan: run directory: got {in_words(needed)}, expected at most {in_words(free)}, what is free on its "
            "disk. Give a --work-dir on another disk, select fewer parameters (select), or lower generate.num."
        )
    limits = {"host": free_memory()}
    if device.type == "cuda":
        limits["gpu"] = torch.cuda.mem_get_info(device)[0]
    for place, limit in limits.items():
        worst = max(plan.stages, key=lambda stage: getattr(stage, place))
        needed = getattr(worst, place)
        if limit is not None and needed > limit:
            found = f"got at least {in_words(needed)}, expected at most {in_words(limit)}, what is free"
            raise PdiffError(f"plan: {place} memory of {worst.name}: {found}. {STAGES[worst.name].advice}")


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan as a person reads it."""
    counts = (plan.parameters, plan.checkpoints, plan.latent, plan.generated, plan.candidates)
    yield "plan: P {:,} parameters, N {:,} checkpoints, L {:,}, M {:,} generated, {:,} candidates".format(*counts)
    yield f"{'stage':<10}{'memory from':>13}{'GPU from':>12}{'on disk':>12}  folder"
    for stage in plan.stages:
        gpu, disk = (in_words(count) if count else "" for count in (stage.gpu, stage.disk))
        row = f"{stage.name:<10}{in_words(stage.host):>13}{gpu:>12}{disk:>12}"
        yield f"{row}  {STAGES[stage.name].folder}"
    yield from plan.notes
