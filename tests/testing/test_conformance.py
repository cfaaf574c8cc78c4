"""The checks accept plugins that keep the rules; each broken rule is found by its check, which names the hook."""

import shutil
from pathlib import Path

import pytest
import yaml

from pdiff.runtime.errors import PdiffError
from pdiff.testing import CHECKS, Conformance, check_plugin

SOUND = '''
import pickle
import time
import torch
from torch.nn.functional import cross_entropy
from pdiff import *

COUNT = []


class Draws:
    """Calls what cannot be pickled."""

    def __reduce__(self):
        raise pickle.PicklingError("no")


@hookimpl
def build(cfg):
    torch.manual_seed(cfg.seed)
    layers = (torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 2))
    splits = {name: torch.randn(200, 4) for name in ("train", "select", "test")}
    local = lambda model, path: None
    return Task(torch.nn.Sequential(*layers), {**splits, "local": Draws()}, Metric("accuracy"), ["2"], export=local)


def labels(x):
    return (x.sum(1) > 0).long()


@hookimpl
def collect(task, names, cfg):
    x, tensors = task.splits["train"], task.model.state_dict(keep_vars=True)
    for trained in (list(task.model.parameters()), [tensors[name] for name in names]):
        optimizer = torch.optim.SGD(trained, 0.5)
        for step in range(8):
            loss = cross_entropy(task.model.train(len(trained) > 2)(x), labels(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if len(trained) == 2:
                params = {name: tensors[name].detach().clone() for name in names}
                origin = {"step": step, "loss": loss.item()}
                yield Snapshot(params, origin, state={"step": torch.tensor(step)})


@hookimpl
def evaluate(task, candidates, split):
    x = task.splits[split]
    for logits in Replay(task.model.eval(), candidates)(x):
        yield measured(logits, x)


def measured(logits, x):
    wrong = logits.argmax(1) != labels(x)
    return Evaluation(1 - wrong.double().mean().item(), wrong, ~wrong)


@hookimpl
def ensemble(task, candidates, split):
    x = task.splits[split]
    return measured(sum(logits.softmax(1) for logits in Replay(task.model.eval(), candidates)(x)), x)


@hookimpl
def draw(task, picks, folder):
    (folder / "a.png").write_bytes(bytes([137]) + b"PNG" + bytes([13, 10, 26, 10]))
    return [Picture("a.png", "a title", "a caption")]


@hookimpl
def inputs(task, split):
    return iter([(task.splits[split],)])
'''
LOSS = """

@hookimpl
def loss(task, params):
    x = task.splits["train"]
    logits = torch.func.functional_call(task.model.eval(), dict(params), (x,))
    return cross_entropy(logits, labels(x))
"""
LOAD = """
@hookimpl
@torch.no_grad()
def load_params(model, params):
    for name, value in params.items():
        model.state_dict()[name].copy_(value)
"""
TWICE = "    COUNT.append(1)\n"
MEASURED = "        yield measured(logits, x)"
LOOP = f"    for logits in Replay(task.model.eval(), candidates)(x):\n{MEASURED}"
NO_LOAD = "@hookimpl\ndef load_params():\n    pass\n\n\n@hookimpl\ndef evaluate"
MUCH_LOAD = f"{LOAD}    model[0].bias.add_(1)\n\n\n@hookimpl\ndef evaluate"
ALTERNATING = LOOP.replace("yield measured(", "COUNT.append(1)\n        yield measured((-1) ** len(COUNT) * ")
IN_TRAINING = """    for index in range(len(candidates)):
        candidates.load(task.model.train(), index)
        yield measured(task.model(x), x)"""

# For each check what breaks its rule: what stands in the sound plugin, what takes its place, words of the line.
BROKEN = [
    ("hooks", "def evaluate(", "def evalute(", "unknown hook 'evalute'"),
    ("hooks", "@hookimpl\ndef collect", "def collect", "lacks the hook collect. Define it, or give checkpoints.files"),
    (
        "hooks",
        "candidates, split):\n    x = task",
        "candidates, splits):\n    x = task",
        "can not be found in the hook",
    ),
    ("build", "    return Task(", "    0 and Task(", "build returned None, expected pdiff.Task. Return"),
    ("build", "    layers = (", f"{TWICE}    layers = (*[torch.nn.Linear(4, 4)] * len(COUNT), ", "other tensors"),
    ("build", '("train", "select", "test")', '("select", "test")', "without the split 'train'. Add it, or set eval"),
    (
        "build",
        "    torch.manual_seed(cfg.seed)",
        "    1 / 0",
        "build raised ZeroDivisionError: division by zero (broken.py",
    ),
    (
        "selection",
        "def labels",
        f"@hookimpl\ndef select_params(task, cfg):\n{TWICE}    return ['2.weight', '2.bias'][:: 3 - 2 * len(COUNT)]"
        "\n\n\ndef labels",
        "select_params returned other names the second time. Derive them from task and cfg",
    ),
    (
        "selection",
        "def labels",
        "@hookimpl\ndef select_params(task):\n    return '2.weight'\n\n\ndef labels",
        "returned str",
    ),
    (
        "layout",
        "    return Task(",
        "    cfg.select = 'head+buffers'\n    layers[2].register_buffer('big', torch.tensor([0, 2**24 + 1]))\n"
        "    return Task(",
        "'2.big' holds integers above 2**24. Leave it out",
    ),
    (
        "collection",
        "trained, 0.5)",
        "trained, 0.0)",
        "collect yielded the same values in the snapshots 0 and 1. Train the",
    ),
    ("collection", "range(8)", "range(1)", "collect yielded 1 snapshots, expected 2 at least. Yield one per step"),
    (
        "collection",
        "for name in names}",
        "for name in names[:1]}",
        "a selection without '2.bias'. Yield every tensor of",
    ),
    (
        "rest",
        "train(len(trained) > 2)",
        "train()",
        "collect changed '1.running_mean', which is not selected. Freeze it",
    ),
    (
        "resume",
        "model.train(len(trained) > 2)(x)",
        "model.train(len(trained) > 2)(x + time.time() % 1)",
        "cannot be resumed",
    ),
    (
        "resume",
        "def collect(task, names, cfg)",
        "def collect(task, names, cfg, state)",
        "collect gave another snapshot 2 a",
    ),
    ("loading", "@hookimpl\ndef evaluate", NO_LOAD, "left '2.w"),
    ("loading", "@hookimpl\ndef evaluate", MUCH_LOAD, "changed '0.bias'"),
    ("result", ", ~wrong)", ", wrong)", "expected the same. Give pseudo-values where"),
    (
        "result",
        MEASURED,
        "        return\n        yield",
        "evaluate yielded 0 results for 4 candidates. Yield one for each",
    ),
    (
        "repeatable",
        MEASURED,
        "        yield measured(logits + torch.randn_like(logits), x)",
        "the second time. Call model.eval()",
    ),
    ("order", LOOP, ALTERNATING, "in another order. Keep nothing"),
    (
        "alone",
        MEASURED,
        "        yield measured(logits if len(candidates) > 1 else -logits, x)",
        "alone. Under pdiff.Replay",
    ),
    ("undisturbed", LOOP, IN_TRAINING, "evaluate changed '1.running_mean'"),
    (
        "dead",
        MEASURED,
        "        assert not logits.isnan().any(), 'NaN'\n" + MEASURED,
        "evaluate raised AssertionError: NaN (broken.py",
    ),
    (
        "direction",
        'Metric("accuracy")',
        'Metric("accuracy", higher_is_better=False)',
        "lower is said to be better. Turn",
    ),
    (
        "direction",
        LOOP,
        "    for _ in candidates:\n        yield measured(task.model.eval()(x), x)",
        "gave all candidates the same",
    ),
    (
        "similarity",
        "export=local)",
        "similarity=lambda a, b: torch.zeros(len(a), len(b)))",
        "of 0.0000 of a signature with its",
    ),
    (
        "similarity",
        "export=local)",
        "similarity=lambda a, b: torch.ones(len(a)))",
        "a similarity of shape (10,), expected (10, 10)",
    ),
    (
        "similarity",
        "export=local)",
        "similarity=lambda a, b: torch.ones(len(a), len(b)).triu())",
        "two similarities to one pair",
    ),
    (
        "similarity",
        "export=local)",
        "similarity=lambda a, b: 2 * torch.ones(len(a), len(b)))",
        "not finite or is above 1",
    ),
    (
        "similarity",
        "wrong, ~wrong)\n\n\n@hookimpl\ndef ensemble",
        "logits[:, 0].detach(), ~wrong)\n\n\n@hookimpl\ndef ensemble",
        "The default takes signatures of booleans: yield such, or give Task.similarity.",
    ),
    (
        "ensemble",
        "    return measured(sum(",
        "    return measured(torch.randn(200, 2) + sum(",
        "ensemble gave the metric",
    ),
    (
        "drawing",
        'Picture("a.png"',
        'Picture("b.png"',
        "draw returned the picture 'b.png', which is no PNG in its folder",
    ),
    ("inputs", "(task.splits[split],)", "task.splits[split]", "inputs yielded Tensor, expected a tuple: the arguments"),
    ("inputs", "(task.splits[split],)", "(torch.randn(9, 4),)", "inputs yielded another batch the second time"),
]
HOOKS = {"hooks": "", "similarity": "build"}
COLLECTED, _, _ = SOUND.partition("@hookimpl\ndef evaluate(")
CONDITIONAL = f"""{COLLECTED.replace("origin, state", "origin, condition={'shift': step / 8}, state")}
@hookimpl
def evaluate(task, candidates, split):
    x = task.splits[split]
    for index, logits in enumerate(Replay(task.model.eval(), candidates)(x)):
        yield measured(logits, x, candidates.conditions[index]["shift"])


def measured(logits, x, shift):
    wrong = logits.argmax(1) != (x.sum(1) > shift).long()
    share = logits.argmax(1).double().mean().item()
    return Evaluation(1 - wrong.double().mean().item(), wrong, ~wrong, condition={{"shift": share}})


@hookimpl
def ensemble(task, candidates, split):
    x = task.splits[split]
    logits = sum(logits.softmax(1) for logits in Replay(task.model.eval(), candidates)(x))
    return measured(logits, x, candidates.conditions[0]["shift"])
"""


def conformance(tmp_path, text: str) -> Conformance:
    """Write a plugin, and return it ready for its checks."""
    (tmp_path / "broken.py").write_text(text)
    (tmp_path / "broken.yaml").write_text("select: head\n")
    return Conformance(str(tmp_path / "broken.py"), tmp_path / "runs")


def failed(findings) -> list[str]:
    return [finding.line for finding in findings if finding.state == "failed"]


def test_a_plugin_of_local_functions_that_cannot_be_pickled_passes_every_check(tmp_path):
    plugin = conformance(tmp_path, SOUND + LOSS)
    found = {name: plugin.check(name).state for name in CHECKS}
    assert found == dict.fromkeys(CHECKS, "passed") | dict.fromkeys(("finetuning", "symmetries"), "not applicable")


@pytest.mark.parametrize(("check", "sound", "broken", "words"), BROKEN)
def test_a_broken_rule_is_found_and_its_hook_named(tmp_path, check, sound, broken, words):
    assert SOUND.count(sound) >= 1
    finding = conformance(tmp_path, SOUND.replace(sound, broken)).check(check)
    assert (finding.state, words in finding.line) == ("failed", True), finding
    assert "\n" not in finding.line
    assert HOOKS.get(check, CHECKS[check].hook) in finding.line


NETWORK, DATA = "torch.nn.Sequential(*layers)", "torch.randn(200, 4)"
THERE = ".to(resolve_device(cfg.device))"
ON_DEVICE = SOUND.replace(NETWORK, NETWORK + THERE).replace(DATA, DATA + THERE)


def on_gpu(folder: Path, text: str) -> Conformance:
    """Return a plugin of some text, to be checked on a simulated GPU."""
    (folder / "there.py").write_text(text)
    return Conformance(str(folder / "there.py"), folder / "runs", simulate_cuda=True)


def test_a_plugin_that_uses_the_device_passes_every_check_on_a_simulated_gpu(tmp_path):
    plugin = on_gpu(tmp_path, ON_DEVICE)
    failed = [finding for finding in map(plugin.check, CHECKS) if finding.state == "failed"]
    assert failed == []
    assert plugin.specimen.built.device.type == "cuda"


@pytest.mark.parametrize(
    ("check", "sound", "broken", "words"),
    [
        ("build", NETWORK + THERE, NETWORK, "on cpu, expected cuda:0, the device of the run. Put it there with .to("),
        ("collection", DATA + THERE, DATA, "Move what meets the network there with .to(device)."),
        ("result", "x = task.splits[split]", "x = task.splits[split].cpu()", "Move what meets the network there"),
        ("result", "wrong = logits", "logits.numpy(); wrong = logits", "Call .cpu() before it becomes an array."),
        ("collection", "loss = cross", "x.normal_(generator=torch.Generator()); loss = cross", "Make the generator on"),
        ("collection", "loss = cross", "x.cpu()[x.argmax(0)]; loss = cross", "Move the indexed tensor to the device"),
    ],
)
def test_what_mixes_gpu_and_host_is_one_line_that_names_the_hook(tmp_path, check, sound, broken, words):
    assert sound in ON_DEVICE
    finding = on_gpu(tmp_path, ON_DEVICE.replace(sound, broken)).check(check)
    assert (finding.state, words in finding.line) == ("failed", True), finding
    assert "\n" not in finding.line
    assert CHECKS[check].hook in finding.line


def test_a_plugin_with_conditions_passes_every_check(tmp_path):
    plugin = conformance(tmp_path, CONDITIONAL)
    found = {name: plugin.check(name).state for name in CHECKS}
    without = ("drawing", "finetuning", "loss", "inputs", "symmetries")
    assert found == dict.fromkeys(CHECKS, "passed") | dict.fromkeys(without, "not applicable")


DRAWS = """

@hookimpl
def draw(task, picks, folder):
    assert all("shift" in condition for found in picks.values() for condition in found.conditions)
    (folder / "a.png").write_bytes(bytes([137]) + b"PNG" + bytes([13, 10, 26, 10]))
    return [Picture("a.png", "a title", "a caption")]
"""
FINETUNES = """

@hookimpl
def finetune(task, start, conditions, steps):
    for condition in conditions:
        yield {name: tensor + steps * (1 + condition["shift"]) for name, tensor in start.items()}
"""


def test_a_plugin_draws_and_fine_tunes_for_conditions(tmp_path):
    plugin = conformance(tmp_path, CONDITIONAL + DRAWS + FINETUNES)
    found = {name: plugin.check(name) for name in ("drawing", "finetuning")}
    assert {name: finding.state for name, finding in found.items()} == dict.fromkeys(found, "passed"), found
    (tmp_path / "broken.yaml").write_text("select: head\nfit: {canonical: permutation}\n")
    formed = Conformance(str(tmp_path / "broken.py"), tmp_path / "formed")
    assert formed.check("finetuning") == found["finetuning"]
    assert found["finetuning"].line == "2 steps for 4 conditions, the same the second time"


@pytest.mark.parametrize(
    ("sound", "broken", "words"),
    [
        ("steps * (1", "0 * (1", "finetune yielded for condition 0 what it began with, after 2 steps. Train it."),
        ("tensor +", "torch.rand(1) + tensor +", "finetune yielded other values the second time. Seed what you draw."),
        ("in conditions:", "in [*conditions][1:]:", "finetune yielded 3 selections for 4 conditions. Yield one for"),
        ("        yield", "        task.model[0].bias.data += 1\n        yield", "finetune changed '0.bias', which"),
    ],
)
def test_a_broken_rule_of_finetune_is_found(tmp_path, sound, broken, words):
    assert FINETUNES.count(sound) == 1
    finding = conformance(tmp_path, CONDITIONAL + FINETUNES.replace(sound, broken)).check("finetuning")
    assert (finding.state, words in finding.line) == ("failed", True), finding


LOSSES = """

@hookimpl
def losses(task, params):
    count = len(params["2.bias"])
    return torch.stack([loss(task, {name: params[name][n] for name in params}) for n in range(count)])
"""


UNTOLD = "not compared: no two successive snapshots tell step and loss, and no hook finetune goes on from the base"


def test_a_loss_is_held_against_what_the_snapshots_tell_of_the_training(tmp_path):
    found = conformance(tmp_path, SOUND + LOSS + LOSSES).check("loss")
    assert found.state == "passed"
    assert found.line == "finite, with a gradient in each of 2 tensors; what collect minimised at 3 steps"


def test_a_loss_that_no_snapshot_tells_is_not_compared(tmp_path):
    untold = SOUND.replace(', "loss": loss.item()', "") + LOSS.replace("labels(x))", "1 - labels(x))")
    assert conformance(tmp_path, untold).check("loss").line.endswith(f"; {UNTOLD}")


@pytest.mark.parametrize(
    ("sound", "broken", "words"),
    [
        ("    return cross", "    cross", "loss returned None, expected a tensor of shape (). Return it."),
        ("labels(x))", "labels(x))[None]", "loss returned shape (1,), expected (). Return one number for each"),
        ("labels(x))", "labels(x)) * torch.nan", "loss is nan at step 0; the largest values are in '2.weight'. Lower"),
        ("labels(x))", "labels(x)).detach()", "loss has no gradient in '2.weight', nor in any tensor. Use the"),
        ("dict(params)", "{**params, '2.bias': params['2.bias'].detach()}", "loss has no gradient in '2.bias'. Use"),
        ("labels(x))", "labels(x)) * 0", "loss has the gradient 0 in '2.weight' and in all others. Use the tensors"),
        ("    x =", "    task.model[0].bias.data += 1\n    x =", "loss changed '0.bias', which is not selected."),
        ("eval()", "train()", "loss changed '1.running_mean', which is not selected. Freeze it"),
        ("labels(x))", "labels(x)) * len(COUNT.append(1) or COUNT)", "the second time, "),
        ("labels(x))", "labels(x)) / (1 / 0)", "loss raised ZeroDivisionError: division by zero (broken.py, line "),
        ('["train"]', '["train"][:50]', "loss gave snapshot 0 "),
        ('["train"]', '["select"]', " Take the batch of that step as the training does, in its mode."),
    ],
)
def test_a_broken_rule_of_loss_is_found(tmp_path, sound, broken, words):
    assert LOSS.count(sound) == 1
    finding = conformance(tmp_path, SOUND + LOSS.replace(sound, broken)).check("loss")
    assert (finding.state, words in finding.line, "\n" in finding.line) == ("failed", True, False), finding
    assert finding.line.startswith("plugin broken: loss ")


@pytest.mark.parametrize(
    ("sound", "broken", "words"),
    [
        ("    return torch", "    torch", "losses returned None, expected a tensor of shape (4,). Return it."),
        ("range(count)])", "range(count)])[1:]", "losses returned shape (3,), expected (4,). Return one number"),
        ("range(count)])", "range(count)]).mean().expand(count)", "a loss with a gradient in '2.weight' of another."),
        ("range(count)])", "range(count)]) * 1.01", "for selection 0. Let both take the same batch, or leave one out."),
    ],
)
def test_a_broken_rule_of_losses_is_found(tmp_path, sound, broken, words):
    assert LOSSES.count(sound) == 1
    finding = conformance(tmp_path, SOUND + LOSS + LOSSES.replace(sound, broken)).check("loss")
    assert (finding.state, words in finding.line) == ("failed", True), finding
    assert finding.line.startswith("plugin broken: loss")


CONDITIONAL_LOSS = """

@hookimpl
def loss(task, params, condition):
    x = task.splits["train"]
    logits = torch.func.functional_call(task.model.eval(), dict(params), (x,))
    return cross_entropy(logits, (x.sum(1) > condition["shift"]).long())


@hookimpl
def finetune(task, start, conditions, steps):
    for condition in conditions:
        params = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        for step in range(steps):
            gradients = torch.autograd.grad(loss(task, params, condition), list(params.values()))
            pairs = zip(params.items(), gradients, strict=True)
            params = {name: (tensor - 0.5 * gradient).detach().requires_grad_() for (name, tensor), gradient in pairs}
        yield {name: tensor.detach() for name, tensor in params.items()}
"""


@pytest.mark.parametrize(
    ("sound", "broken", "words"),
    [
        ("0.5 *", "0.5 *", "the first step of finetune goes against it for 4 conditions"),
        ("0.5 *", "(step > 0) *", "not compared: the first step of finetune moves nothing that has a large gradient"),
        ("@hookimpl\ndef finetune", "def finetune", UNTOLD),
    ],
)
def test_a_loss_for_conditions_is_held_against_a_step_of_finetune(tmp_path, sound, broken, words):
    found = conformance(tmp_path, CONDITIONAL + CONDITIONAL_LOSS.replace(sound, broken)).check("loss")
    assert (found.state, found.line) == ("passed", f"finite, with a gradient in each of 2 tensors; {words}")


def test_a_loss_that_finetune_does_not_lower_is_found(tmp_path):
    broken = CONDITIONAL_LOSS.replace("grad(loss(task, params, condition)", 'grad(loss(task, params, {"shift": 3.0})')
    assert broken != CONDITIONAL_LOSS
    finding = conformance(tmp_path, CONDITIONAL + broken).check("loss")
    words = "plugin broken: loss has a gradient in '2.weight' that finetune does not go against in its first step for s"
    assert (finding.state, finding.line.startswith(words)) == ("failed", True), finding


def test_a_selection_of_statistics_alone_has_no_loss_to_learn_by(tmp_path):
    normed = (Path(__file__).parents[1] / "run" / "normed.py").read_text()
    (tmp_path / "normed.py").write_text(normed + "\n\n@hookimpl\ndef loss(task):\n    pass\n")
    plugin = Conformance(str(tmp_path / "normed.py"), tmp_path / "runs", options={"select": "regex(running_mean)"})
    assert plugin.check("loss").line == "the selection has no parameter"


@pytest.mark.parametrize(
    ("check", "sound", "broken", "words"),
    [
        ("order", "conditions[index]", "conditions[0]", "evaluate gave candidate 0 the metric "),
        ("alone", "conditions[index]", "conditions[-1]", "evaluate gave candidate 0 the metric "),
        (
            "repeatable",
            '"shift": share}',
            '"shift": COUNT.append(1) or len(COUNT)}',
            "another measured condition the sec",
        ),
        (
            "collection",
            "'shift': step / 8",
            "f'shift{step}': 0.0",
            "condition of snapshot 1: got the name 'shift1'",
        ),
    ],
)
def test_a_broken_rule_of_conditions_is_found(tmp_path, check, sound, broken, words):
    assert CONDITIONAL.count(sound) == 1
    finding = conformance(tmp_path, CONDITIONAL.replace(sound, broken)).check(check)
    assert (finding.state, words in finding.line) == ("failed", True), finding


def test_what_cannot_be_looked_at_is_not_applicable(tmp_path):
    plugin = conformance(tmp_path, SOUND.replace("    return Task(", "    0 and Task("))
    assert plugin.check("order").state == "not applicable"
    assert plugin.check("order").line == "needs collection, which did not pass"


def test_optional_hooks_that_lack_are_not_applicable(tmp_path):
    plugin = conformance(tmp_path, SOUND.partition("@hookimpl\ndef ensemble")[0])
    assert [plugin.check(name).state for name in ("ensemble", "drawing")] == ["not applicable"] * 2


def test_a_file_of_a_package_that_would_take_the_name_of_a_hook_is_found(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text(SOUND)
    (tmp_path / "mine" / "default.yaml").write_text("select: head\n")
    plugin = Conformance(str(tmp_path / "mine"), tmp_path / "runs")
    (tmp_path / "mine" / "loss.py").touch()
    assert plugin.check("hooks").state == "passed"
    (tmp_path / "mine" / "draw.py").touch()
    found = Conformance(str(tmp_path / "mine"), tmp_path / "runs").check("hooks")
    words = "plugin mine: has the hook draw and the file draw.py, which takes its name once it is imported. Give the f"
    assert (found.state, found.line.startswith(words)) == ("failed", True), found


def test_an_unknown_check_is_refused(tmp_path):
    with pytest.raises(PdiffError, match="^check: got 'reume'. Did you mean 'resume'"):
        conformance(tmp_path, SOUND).check("reume")


def test_checkpoints_from_files_take_the_place_of_a_collection(tmp_path):
    import torch

    (tmp_path / "files").mkdir()
    plugin = conformance(tmp_path, SOUND)
    run = plugin.specimen.collected
    for index, vector in enumerate(run.population.tensor()):
        state = {**run.task.model.state_dict(), **run.population.layout.unflatten(vector)}
        torch.save(state, tmp_path / "files" / f"{index}.pth")
    shutil.rmtree(tmp_path / "runs")
    without = SOUND.replace("@hookimpl\ndef collect", "def collect") + LOSS
    (tmp_path / "broken.py").write_text(without)
    findings = check_plugin(str(tmp_path / "broken.py"), options={"checkpoints.files": str(tmp_path / "files")})
    assert failed(findings) == []
    states, lines = ({f.check: getattr(f, name) for f in findings} for name in ("state", "line"))
    assert lines["loss"].endswith("; not compared: the checkpoints come from files")
    assert (states["collection"], states["rest"], states["resume"]) == ("passed", "not applicable", "not applicable")


def test_classification_keeps_the_rules(tmp_path, tiny):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    findings = check_plugin("classification", str(tmp_path / "tiny.yaml"))
    assert failed(findings) == []
    assert {f.check for f in findings if f.state == "passed"} >= set(CHECKS) - {"drawing", "finetuning", "symmetries"}


UNITS = """

@hookimpl
def symmetries(task, names):
    rows = torch.arange(2)[:, None]
    return Symmetries((Group("2.weight", 2, (Place("2.weight", 0, rows),)),))
"""


def test_units_whose_order_tells_something_are_found(tmp_path):
    (tmp_path / "sound.py").write_text(SOUND + UNITS)
    plugin = Conformance(str(tmp_path / "sound.py"), tmp_path / "runs", options={"select": "head"})
    assert plugin.check("inputs").line == "the network gives 1 tensors, (32, 2) of 32 samples or less"
    found = plugin.check("symmetries")
    assert found.state == "failed"
    assert "symmetries returned units (2.weight) whose order, or scale, tells something. Name all" in found.line
