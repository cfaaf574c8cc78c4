"""Checks of what comes before any candidate: the hooks, `build`, `select_params`, `collect`, `load_params`."""

import inspect
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pdiff.run.frozen import check_frozen
from pdiff.stages.branches import roots_of
from pdiff.stages.snapshots import NO_REPETITION, recorded
from pdiff.task.contract import fault
from pdiff.task.plugins import hook_names, import_plugin, load_plugin, plugin_name
from pdiff.testing.finding import NotApplicable
from pdiff.testing.specimen import SNAPSHOTS, advance
from pdiff.testing.tensors import changed, state_of
from pdiff.weights.roles import FLOOR
from pdiff.weights.ties import frozen_names

if TYPE_CHECKING:
    from pdiff.testing.specimen import Specimen


def check_hooks(specimen: "Specimen") -> str:
    """Every hook has a known name and known arguments, and none that is needed lacks."""
    name = specimen.config.plugin
    own = hook_names(load_plugin(name), plugin_name(name))
    package = inspect.getfile(import_plugin(name))
    taken = next((hook for hook in own if Path(package).with_name(f"{hook}.py").exists()), None)
    if taken and Path(package).name == "__init__.py":
        line = f"has the hook {taken} and the file {taken}.py, which takes its name once it is imported."
        raise fault(plugin_name(name), f"{line} Give the file another name.")
    if "collect" not in own and not specimen.config.checkpoints.files:
        raise fault(plugin_name(name), "lacks the hook collect. Define it, or give checkpoints.files.")
    roots_of(specimen.built)  # says what is wrong with the hook branches
    return ", ".join(own)


def check_build(specimen: "Specimen") -> str:
    """`build` returns a task, and the same network the second time."""
    run, again = specimen.built, specimen.run("again")
    shapes, shapes_again = ({n: t.shape for n, t in r.built.model.state_dict().items()} for r in (run, again))
    if shapes != shapes_again:
        words = "build returned a network with other tensors the second time. Build it from cfg alone."
        raise fault(run.name, words)
    elsewhere = {str(t.device) for t in run.built.model.state_dict().values() if t.device != run.device}
    if elsewhere and run.device.type != "cpu":
        words = f"build returned a network on {min(elsewhere)}, expected {run.device}, the device of the run."
        raise fault(run.name, f"{words} Put it there with .to(pdiff.resolve_device(cfg.device)), its data too.")
    if specimen.config.evaluate.train and "train" not in run.built.splits:
        words = "build returned a task without the split 'train'. Add it, or set evaluate.train to []."
        raise fault(run.name, words)
    return f"{type(run.built.model).__name__} with {len(shapes)} tensors"


def check_selection(specimen: "Specimen") -> str:
    """`select_params` names some of the network's tensors, and the same ones each time."""
    run, again = specimen.built, specimen.run("again")
    if run.selected != again.selected:
        words = "select_params returned other names the second time. Derive them from task and cfg alone, in order."
        raise fault(run.name, words)
    return f"{len(run.selected)} tensors, {run.layout.size} values"


def check_layout(specimen: "Specimen") -> str:
    """The selection survives the way into a vector and back, bit for bit; variances do to rounding."""
    run = specimen.built
    state = state_of(run.built.model)
    back = run.layout.unflatten(run.layout.flatten(state, f"plugin {run.name}: select_params"))
    rounded = {entry.name for entry in run.layout if entry.code}
    lost = [n for n in changed(state, back) if n not in rounded or not torch.allclose(state[n], back[n], atol=FLOOR)]
    if lost:
        words = f"select_params returned {lost[0]!r}, which does not come back from a float32 vector. Leave it out."
        raise fault(run.name, words)
    return "comes back bit for bit"


def check_collection(specimen: "Specimen") -> str:
    """`collect` yields snapshots of the selection that are finite and differ."""
    vectors, name = specimen.vectors, specimen.built.name
    if len(vectors) < 2:
        raise fault(name, f"collect yielded {len(vectors)} snapshots, expected 2 at least. Yield one per step.")
    for row, (one, other) in enumerate(itertools.pairwise(vectors)):
        if torch.equal(one, other):
            words = (
                f"collect yielded the same values in the snapshots {row} and {row + 1}. "
                "Train the selection between two of them (is requires_grad set, is the rate above 0?)."
            )
            raise fault(name, words)
    return f"the first {len(vectors)} differ and are finite"


def check_rest(specimen: "Specimen") -> str:
    """`collect` changes nothing but the selection once the first snapshot is out."""
    if specimen.config.checkpoints.files:
        raise NotApplicable("the checkpoints come from files")
    run, count = specimen.collected, len(specimen.vectors)
    check_frozen(run)
    return f"the other tensors are the same after {count} snapshots"


def check_resume(specimen: "Specimen") -> str:
    """A collection that is stopped between two snapshots and resumed ends with the same population."""
    if specimen.config.checkpoints.files:
        raise NotApplicable("the checkpoints come from files")
    vectors, run = specimen.vectors, specimen.run("stopped")
    before = len(run.collected)
    snapshots = recorded(specimen.run("stopped"))
    advance(snapshots, len(vectors))
    snapshots.close()
    resumed = specimen.run("stopped").collected.tensor()[:SNAPSHOTS]
    for row, vector in enumerate(vectors):
        if row >= len(resumed) or not torch.equal(vector, resumed[row]):
            words = (
                f"collect gave another snapshot {row} after a stop behind snapshot {before - 1}. Put into "
                "Snapshot.state all that the next step depends on (optimiser, step), and seed what each step draws."
            )
            if run.device.type == "cuda":
                words += f" Check it with --cfg-options device=cpu first: {NO_REPETITION}."
            raise fault(run.name, words)
    return f"stopped after {before} snapshots, it ends with the same {len(vectors)}"


def check_loading(specimen: "Specimen") -> str:
    """`load_params` puts the selection into the network, and changes nothing else."""
    run, vector = specimen.trained, specimen.vectors[0]
    candidates = run.candidates(torch.stack([vector + 1, vector]))
    before, frozen = state_of(run.task.model), frozen_names(run.task.model, candidates.layout.names)
    for index, params in enumerate(candidates):
        candidates.load(run.task.model, index)
        after = state_of(run.task.model)
        wrong = changed({name: tensor.cpu() for name, tensor in params.items()}, {name: after[name] for name in params})
        if wrong:
            words = f"load_params left {wrong[0]!r} unlike what it was given. Copy every tensor in place."
            raise fault(run.name, words)
        touched = [name for name in changed(before, after) if name in frozen]
        if touched:
            words = f"load_params changed {touched[0]!r}, which is not selected. Copy the given tensors and no other."
            raise fault(run.name, words)
    return f"{len(candidates[0])} tensors are as given, {len(frozen)} as before"
