"""What hooks must hand over; anything else is one line that names the plugin, the hook, and what to do."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Size, Tensor, nn

from pdiff.task.selection import fault, kind
from pdiff.task.task import Evaluation, Metric, Picture, Snapshot, Task
from pdiff.weights.conditions import check_condition
from pdiff.weights.ties import first_names, partly_shared

SPLITS = ("select", "test")  # a split `train` is needed only where the config measures on it


def check_task(plugin: str, task: Any) -> None:
    """Raise a `PdiffError` unless `build` returned a task."""
    if not isinstance(task, Task):
        line = f"build returned {kind(task)}, expected pdiff.Task. Return pdiff.Task(model, splits, metric)."
        raise fault(plugin, line)
    for name, expected in (("model", nn.Module), ("splits", Mapping), ("metric", Metric)):
        value = getattr(task, name)
        if not isinstance(value, expected):
            raise fault(plugin, f"build returned a task whose {name} is {kind(value)}, expected {expected.__name__}.")
    for split in SPLITS:
        if split not in task.splits:
            found = ", ".join(task.splits) or "none"
            raise fault(plugin, f"build returned a task with the splits {found}, expected {split!r} too. Add it.")


def check_names(plugin: str, names: Any, model: nn.Module) -> None:
    """Raise a `PdiffError` unless `select_params` returned names of the network's parameters and buffers."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise fault(plugin, f"select_params returned {kind(names)}, expected a sequence of names. Return a list.")
    if not names:
        raise fault(plugin, "select_params returned no name. Select at least one parameter.")
    known = list(model.state_dict())
    for name in names:
        if not isinstance(name, str):
            raise fault(plugin, f"select_params returned {kind(name)} among the names, expected texts.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:3]
            line = f"select_params returned {name!r}, which the network lacks. Closest names: {', '.join(close)}."
            raise fault(plugin, line)
        if names.count(name) > 1:
            raise fault(plugin, f"select_params returned {name!r} {names.count(name)} times. Name it once.")
    first = first_names(model)
    pair = partly_shared(model, {first[name] for name in names})
    if pair:
        line = f"select_params returned {pair[0]!r}, which shares a part of its memory with {pair[1]!r}."
        raise fault(plugin, f"{line} Tie whole tensors, or give each memory of its own (clone it).")


def check_iterable(plugin: str, hook: str, value: Any, item: type) -> None:
    """Raise a `PdiffError` unless a hook returned something that can be iterated."""
    if not isinstance(value, Iterable):
        words = f"expected an iterator of pdiff.{item.__name__}. Yield one after another."
        raise fault(plugin, f"{hook} returned {kind(value)}, {words}")


def check_snapshot(plugin: str, snapshot: Any) -> None:
    """Raise a `PdiffError` unless `collect` yielded a snapshot with sound values."""
    if not isinstance(snapshot, Snapshot):
        line = f"collect yielded {kind(snapshot)}, expected pdiff.Snapshot. Yield pdiff.Snapshot(params, ...)."
        raise fault(plugin, line)
    check_tensors(plugin, "params", snapshot.params)
    if snapshot.state is not None:
        check_tensors(plugin, "state", snapshot.state)
    if not is_json(snapshot.provenance):
        line = f"collect yielded the provenance {snapshot.provenance!r}, which is no JSON. Use plain values."
        raise fault(plugin, line)
    if "condition" in snapshot.provenance:
        line = "collect yielded a provenance with the key 'condition', which is kept for Snapshot.condition."
        raise fault(plugin, f"{line} Give the numbers there, or rename the key.")


def check_same_names(plugin: str, row: int, condition: Any, first: Mapping[str, float] | None) -> None:
    """Raise a `PdiffError` unless a snapshot has a condition of the first one's names, or neither has one.

    Args:
        plugin: its name.
        row: the snapshot's number.
        condition: its own.
        first: that of the first snapshot; its own where it is the first.
    """
    if condition is None and first is None:
        return
    names = first if isinstance(first, Mapping) else ()
    if condition is not None and first is None:
        line = f"collect yielded a condition with snapshot {row} and none with the first. Give each one, or none."
        raise fault(plugin, line)
    check_condition(condition, tuple(names), f"plugin {plugin}: collect, condition of snapshot {row}")


def check_tensors(plugin: str, field: str, tensors: Any) -> None:
    """Raise a `PdiffError` unless a field of a snapshot holds tensors by name."""
    if not isinstance(tensors, Mapping):
        raise fault(plugin, f"collect yielded a snapshot whose {field} is {kind(tensors)}, expected tensors by name.")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise fault(plugin, f"collect yielded {kind(tensor)} as {field} {name!r}, expected a tensor.")


def check_evaluations(
    plugin: str, hook: str, results: Sequence[Any], count: int, metric: Metric, source: str, first: int = 0
) -> None:
    """Raise a `PdiffError` unless a hook handed over one sound evaluation per candidate.

    Args:
        plugin: its name.
        hook: `evaluate`, or `ensemble`, which is asked once for each group.
        results: what came.
        count: how many were asked for.
        metric: the task's.
        source: where the candidates come from, for the error line.
        first: number of the first of them in their source.
    """
    for index, result in enumerate(results, first):
        check_evaluation(plugin, f"{hook} gave for candidate {index} of {source}", result, metric)
    if len(results) != count:
        line = f"{hook} yielded {len(results)} results for {count} candidates. Yield one for each, in order."
        raise fault(plugin, line)
    for field in ("signature", "scores"):
        shapes = {getattr(getattr(result, field), "shape", None) for result in results}
        if len(shapes) > 1:
            line = f"{hook} yielded {field} of {len(shapes)} shapes, expected one. Measure all on the same samples."
            raise fault(plugin, line)


def check_alike(plugin: str, field: str, shapes: Mapping[str, Size | None]) -> None:
    """Raise a `PdiffError` unless what is compared of the candidates of all sources has one shape.

    Args:
        plugin: its name.
        field: `signature`, or `scores`.
        shapes: that of each source; None where it has none.
    """
    known = [(source, tuple(shape)) for source, shape in shapes.items() if shape is not None]
    for source, shape in known[1:]:
        if shape != known[0][1]:
            words = f"{field} of shape {known[0][1]} for {known[0][0]} and {shape} for {source}, expected one"
            raise fault(plugin, f"evaluate yielded {words}. Measure all on the same samples.")


def check_evaluation(plugin: str, where: str, result: Any, metric: Metric) -> None:
    """Raise a `PdiffError` unless a result is an evaluation; `where` says whose it is."""
    if not isinstance(result, Evaluation):
        line = f"{where} {kind(result)}, expected pdiff.Evaluation. Give pdiff.Evaluation(metric, signature)."
        raise fault(plugin, line)
    if isinstance(result.metric, bool) or not isinstance(result.metric, int | float):
        raise fault(plugin, f"{where} a metric that is {kind(result.metric)}, expected a float. Call .item().")
    if not math.isfinite(result.metric) and result.metric != metric.worst:
        line = f"{where} the metric {result.metric}, expected a number, or {metric.worst} for a dead candidate."
        raise fault(plugin, line)
    if not isinstance(result.signature, Tensor):
        raise fault(plugin, f"{where} a signature that is {kind(result.signature)}, expected a tensor.")
    if result.scores is not None and not isinstance(result.scores, Tensor):
        raise fault(plugin, f"{where} scores that are {kind(result.scores)}, expected a tensor or None.")
    if result.scores is not None and result.scores.ndim != 1:
        shape = tuple(result.scores.shape)
        raise fault(plugin, f"{where} scores of shape {shape}, expected (S,), one for each test unit.")
    if result.scores is not None and math.isfinite(result.metric) and not result.scores.isfinite().all():
        raise fault(plugin, f"{where} scores that are not finite. Give a dead candidate the metric {metric.worst}.")
    if result.condition is not None and not is_numbers(result.condition):
        raise fault(plugin, f"{where} the measured condition {result.condition!r}, expected finite numbers by name.")
    if not is_json(result.details):
        raise fault(plugin, f"{where} the details {result.details!r}, which are no JSON. Use plain numbers.")


def is_json(values: Any) -> bool:
    """Say whether a value is a mapping that JSON can hold."""
    try:
        json.dumps(dict(values), allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def is_numbers(values: Any) -> bool:
    """Say whether a value is a mapping from texts to finite numbers, as JSON holds them."""
    if not isinstance(values, Mapping) or not is_json(values):
        return False
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())


def check_pictures(plugin: str, pictures: Any) -> None:
    """Raise a `PdiffError` unless `draw` returned pictures."""
    check_iterable(plugin, "draw", pictures, Picture)
    for picture in pictures:
        if not isinstance(picture, Picture):
            line = f"draw returned {kind(picture)}, expected pdiff.Picture. Return pdiff.Picture(file, title, caption)."
            raise fault(plugin, line)
