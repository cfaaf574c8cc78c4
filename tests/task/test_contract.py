"""A hook that hands over nonsense gets one line that names plugin, hook and what to do."""

import re

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.measuring import evaluate_split
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.stages.collect import collect
from pdiff.task.contract import check_pictures
from pdiff.task.plugins import list_plugins
from pdiff.task.task import Picture

GOOD = {
    "build": 'return Task(torch.nn.Linear(2, 2), {"select": 0, "test": 0}, Metric("accuracy"))',
    "select_params": 'return ["weight"]',
    "collect": 'for step in range(3):\n        yield Snapshot({"weight": torch.full((2, 2), float(step))})',
    "evaluate": "for index in range(len(candidates)):\n        yield Evaluation(0.5, torch.zeros(4, dtype=torch.bool))",
    "ensemble": "return Evaluation(0.5, torch.zeros(4, dtype=torch.bool))",
}
ARGUMENTS = {
    "build": "cfg",
    "select_params": "task",
    "collect": "task, names",
    "evaluate": "task, candidates, split",
    "ensemble": "task, candidates",
}
TASK = 'Task(torch.nn.Linear(2, 2), {"select": 0, "test": 0}, Metric("accuracy"))'
SIGNATURE = "torch.zeros(4, dtype=torch.bool)"


def snapshot(params: str, *more: str) -> str:
    return f"yield Snapshot({', '.join([params, *more])})"


def each(result: str) -> str:
    return f"for index in range(len(candidates)):\n        yield {result}"


def conditions(*values: str) -> str:
    """Return snapshots with these conditions."""
    given = f"({', '.join(values)},)"
    return f"for c in {given}:\n        yield Snapshot({{'weight': torch.zeros(2, 2)}}, condition=c)"


NONSENSE = [
    ("build", "pass", r"build returned None, expected pdiff\.Task\. Return pdiff\.Task\(model, splits, metric\)\."),
    ("build", "return torch.nn.Linear(2, 2)", r"build returned Linear, expected pdiff\.Task\."),
    ("build", "return " + TASK.replace("torch.nn.Linear(2, 2)", "torch.relu"), "a task whose model is builtin_"),
    ("build", "return " + TASK.replace('{"select": 0, "test": 0}', "[1]"), "whose splits is list, expected Mapping"),
    ("build", "return " + TASK.replace('Metric("accuracy")', '"accuracy"'), "whose metric is str, expected Metric"),
    ("build", "return " + TASK.replace('"test"', '"val"'), "with the splits select, val, expected 'test' too. Add it"),
    ("select_params", "pass", r"select_params returned None, expected a sequence of names\. Return a list\."),
    ("select_params", 'return "weight"', r"select_params returned str, expected a sequence of names\."),
    ("select_params", "return []", r"select_params returned no name\. Select at least one parameter\."),
    ("select_params", 'return ["wieght"]', r"returned 'wieght', which the network lacks\. Closest names: weight"),
    ("select_params", "return [task.model.weight]", "select_params returned Parameter among the names, expected texts"),
    ("select_params", 'return ["bias", "bias"]', r"select_params returned 'bias' 2 times\. Name it once\."),
    ("collect", "pass", r"collect returned None, expected an iterator of pdiff\.Snapshot\. Yield one after another"),
    ("collect", "return iter(())", r"collect yielded no snapshot\. Yield pdiff\.Snapshot\(params, \.\.\.\)\."),
    ("collect", 'yield {"weight": 1}', r"collect yielded dict, expected pdiff\.Snapshot\."),
    ("collect", snapshot("[torch.zeros(2, 2)]"), "a snapshot whose params is list, expected tensors by name"),
    ("collect", snapshot('{"weight": [1.0]}'), "collect yielded list as params 'weight', expected a tensor"),
    ("collect", snapshot('{"bias": torch.zeros(2)}'), r"a selection without 'weight'\. Yield every tensor of `names`"),
    ("collect", snapshot('{"weight": torch.zeros(4)}'), r"'weight' of shape \(4,\), expected \(2, 2\)"),
    ("collect", snapshot("task.model.state_dict()"), r"yielded 'bias', which is not selected\."),
    ("collect", snapshot("{}", '{"step": torch.tensor(1)}'), r"which is no JSON\. Use plain values"),
    ("collect", snapshot("{}", "{}", "3"), "a snapshot whose state is int, expected tensors by name"),
    ("collect", snapshot("{}", "{}", '{"step": 3}'), "collect yielded int as state 'step', expected a tensor"),
    ("collect", conditions("3.0"), r"condition of snapshot 0: got float, expected numbers by name\. Give"),
    ("collect", conditions("{}"), r"condition of snapshot 0: got dict, expected numbers by name\. Give"),
    ("collect", conditions('{"a": float("nan")}'), r"of snapshot 0: got nan for 'a', expected a finite number"),
    ("collect", conditions('{"a": 1}', '{"a": 1, "b": 2}'), r"condition of snapshot 1: got the name 'b'\. Known: a\."),
    ("collect", conditions('{"a": 1}', "None"), r"of snapshot 1: got no condition, expected numbers by name"),
    ("collect", conditions("None", '{"a": 1}'), "a condition with snapshot 1 and none with the first. Give each one"),
    ("collect", snapshot("{}", '{"condition": "wet"}'), "key 'condition', which is kept for Snapshot.condition. Give"),
    ("evaluate", "pass", r"evaluate returned None, expected an iterator of pdiff\.Evaluation\."),
    ("evaluate", "return iter(())", r"evaluate yielded 0 results for 3 candidates\. Yield one for each, in order\."),
    ("evaluate", each("0.5"), r"evaluate gave for candidate 0 of trained float, expected pdiff\.Evaluation\. Give"),
    ("evaluate", each(f"Evaluation(torch.tensor(0.5), {SIGNATURE})"), r"a metric that is Tensor, expected a float"),
    ("evaluate", each(f"Evaluation(float('nan'), {SIGNATURE})"), "metric nan, expected a number, or -inf for"),
    ("evaluate", each("Evaluation(0.5, [True])"), "a signature that is list, expected a tensor"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, 3)"), "scores that are int, expected a tensor or None"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, torch.ones(1, 2))"), r"scores of shape \(1, 2\), expected \(S,\)"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, torch.tensor([torch.nan]))"), "not finite. Give a dead candidate"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, None, {{'x': torch}})"), "which are no JSON. Use plain numbers"),
    ("evaluate", each("Evaluation(0.5, torch.zeros(4 + index))"), "signature of 3 shapes, expected one. Measure"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, condition=[1.0])"), r"measured condition \[1\.0\], expected fin"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, condition={{'a': 'x'}})"), r"measured condition \{'a': 'x'\}"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, condition={{'a': True}})"), r"measured condition \{'a': True\}"),
    ("evaluate", each(f"Evaluation(0.5, {SIGNATURE}, condition={{'a': float('inf')}})"), r"condition \{'a': inf\}"),
    ("ensemble", "pass", r"ensemble gave for candidate 0 of ensemble None, expected pdiff\.Evaluation\."),
]


def write(path, **changed: str) -> str:
    """Write the good plugin with some of its hooks changed, and return its path."""
    hooks = {name: changed.get(name, body) for name, body in GOOD.items()}
    lines = ["import torch", "from pdiff import *"]
    lines += [f"@hookimpl\ndef {name}({ARGUMENTS[name]}):\n    {body}" for name, body in hooks.items()]
    path.write_text("\n\n\n".join(lines) + "\n")
    return str(path)


def work(plugin: str, folder) -> None:
    """Let a plugin build, select, collect and evaluate."""
    run = Run(resolve({"plugin": plugin}), RunDirectory(folder))
    collect(run)
    vectors = run.population.tensor()
    evaluate_split(run, "trained", run.candidates(vectors), "test")
    evaluate_split(run, "ensemble", run.candidates(vectors[None]), "test")


def test_a_sound_plugin_is_accepted(tmp_path):
    work(write(tmp_path / "sound.py"), tmp_path / "run")


@pytest.mark.parametrize(("hook", "body", "words"), NONSENSE)
def test_nonsense_is_one_line_that_names_plugin_and_hook(tmp_path, hook, body, words):
    with pytest.raises(PdiffError, match=rf"^plugin unsound: {hook}[ ,]") as caught:
        work(write(tmp_path / "unsound.py", **{hook: body}), tmp_path / "run")
    assert re.search(words, str(caught.value))
    assert "\n" not in str(caught.value)


def test_nonsense_of_one_plugin_harms_no_other(tmp_path):
    before = list_plugins()
    for hook in GOOD:
        with pytest.raises(PdiffError, match=f"^plugin {hook}: {hook} "):
            work(write(tmp_path / f"{hook}.py", **{hook: "pass"}), tmp_path / hook)
    work(write(tmp_path / "sound.py"), tmp_path / "run")
    assert list_plugins() == before


def test_a_dead_candidate_has_the_worst_infinity(tmp_path):
    dead = write(tmp_path / "dead.py", evaluate=each(f"Evaluation(-float('inf'), {SIGNATURE})"))
    work(dead, tmp_path / "run")
    alive = write(tmp_path / "alive.py", evaluate=each(f"Evaluation(float('inf'), {SIGNATURE})"))
    with pytest.raises(PdiffError, match="the metric inf, expected a number, or -inf for a dead candidate"):
        work(alive, tmp_path / "other")


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (None, r"draw returned None, expected an iterator of pdiff\.Picture"),
        (["a.png"], r"draw returned str, expected pdiff\.Picture\. Return pdiff\.Picture\(file, title, caption\)\."),
    ],
)
def test_what_draw_returns_is_checked(pictures, words):
    with pytest.raises(PdiffError, match=rf"^plugin mine: {words}"):
        check_pictures("mine", pictures)
    check_pictures("mine", [Picture("a.png", "title", "caption")])
