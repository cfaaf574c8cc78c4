"""The training loss of a plugin as a function of vectors: values, gradients, and each mistake of a hook in one line."""

from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from pdiff import hookimpl
from pdiff.run.behaviour import Behaviour, check_has_loss, has_loss
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_tensors
from pdiff.weights.conditions import Conditions

PLUGIN = Path(__file__).with_name("normed.py")
CONDITIONS = Conditions(["angle"], torch.tensor([[0.0], [1.0], [2.0]]))
ANSWERS = torch.arange(64) % 2


class Loss:
    """The hook `loss`, done by a function of task, params, condition and step."""

    def __init__(self, work):
        self.work = work

    @hookimpl
    def loss(self, task, params, condition, step):
        """Return what the function returns."""
        return self.work(task, params, condition, step)


class Losses:
    """The hook `losses`, done by a function of task, params, conditions and step."""

    def __init__(self, work):
        self.work = work

    @hookimpl
    def losses(self, task, params, conditions, step):
        """Return what the function returns."""
        return self.work(task, params, conditions, step)


def sound(task, params, condition=None, step=0):
    """Return the cross-entropy of one selection on all training data."""
    return cross_entropy(functional_call(task.model.eval(), params, (task.splits["train"],)), ANSWERS)


def stacked(task, params, conditions=None, step=0):
    """Return the cross-entropy of n selections."""
    count = len(next(iter(params.values())))
    return torch.stack([sound(task, {name: params[name][n] for name in params}) for n in range(count)])


@pytest.fixture
def opened(tmp_path):
    """Return a function from a hook and a selection to a run whose frozen network is on disk."""

    def run(hook=None, select: str = "all+buffers") -> Run:
        found = Run(resolve({"plugin": str(PLUGIN), "select": select, "device": "cpu"}), RunDirectory(tmp_path / "run"))
        write_tensors(found.directory.base, found.built.model.state_dict())
        if hook is not None:
            found.plugin.register(hook, "another")
        return found

    return run


def vectors_of(run: Run, count: int = 3) -> torch.Tensor:
    """Return vectors around the built network's `(n, P)`, with gradients."""
    vector = run.layout.flatten(run.built.model.state_dict())
    noise = torch.randn(count, len(vector), generator=torch.Generator().manual_seed(0))
    return (vector + 0.1 * noise).requires_grad_()


@pytest.mark.parametrize("hook", [Loss(sound), Losses(stacked)])
@pytest.mark.parametrize("select", ["all+buffers", "module(0)+module(4)"])
def test_losses_and_gradients_are_those_of_networks_with_the_vectors_in_them(opened, hook, select):
    run = opened(hook, select)
    vectors = vectors_of(run)
    losses = Behaviour(run)(vectors, torch.zeros(3), 0)
    (gradients,) = torch.autograd.grad(losses.sum(), vectors)
    model, again = run.built.model.requires_grad_(True), run.layout
    for vector, loss, gradient in zip(vectors, losses, gradients, strict=True):
        model.load_state_dict(again.unflatten(vector.detach()), strict=False)
        model.zero_grad()
        expected = cross_entropy(model.eval()(run.built.splits["train"]), ANSWERS)
        expected.backward()
        torch.testing.assert_close(loss, expected)
        for name, tensor in model.named_parameters():
            own = next((gradient[entry.slice] for entry in again if entry.name == name), None)
            assert own is None or torch.allclose(own, tensor.grad.flatten(), atol=1e-6)
        assert all(not gradient[entry.slice].any() for entry in again if "running" in entry.name)


def test_each_selection_has_the_condition_of_its_number(opened):
    angles = []
    run = opened(Loss(lambda task, params, condition, step: angles.append(condition) or sound(task, params)))
    vectors, behaviour = vectors_of(run), Behaviour(run, CONDITIONS)
    behaviour(vectors, torch.tensor([2, 0, 2]), 0)
    assert angles == [{"angle": 2.0}, {"angle": 0.0}, {"angle": 2.0}]
    Behaviour(run)(vectors, torch.tensor([2, 0, 2]), 0)
    assert angles[3:] == [None] * 3


def test_what_a_hook_draws_follows_from_the_step_and_is_no_one_elses(opened):
    run = opened(Loss(lambda task, params, condition, step: sound(task, params) * torch.rand(())))
    vectors, behaviour = vectors_of(run), Behaviour(run)
    torch.manual_seed(0)
    one, other, again = (behaviour(vectors, torch.zeros(3), step) for step in (0, 1, 0))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(drawn, torch.rand(1))


def test_each_selection_has_the_draws_of_a_step_to_itself(opened):
    run = opened(Loss(lambda task, params, condition, step: sound(task, params) * torch.rand(())))
    vectors, behaviour = vectors_of(run), Behaviour(run)
    together = behaviour(vectors, torch.zeros(3), 0)
    alone = [behaviour(vectors[number : number + 1], torch.zeros(1), 0) for number in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_statistics_that_a_pass_keeps_touch_neither_vectors_nor_network(opened):
    def training(task, params, condition, step):
        return cross_entropy(functional_call(task.model.train(), params, (task.splits["train"],)), ANSWERS)

    run = opened(Loss(training))
    vectors = vectors_of(run)
    before, state = vectors.detach().clone(), {n: t.clone() for n, t in run.built.model.state_dict().items()}
    Behaviour(run)(vectors, torch.zeros(3), 0).sum().backward()
    assert torch.equal(vectors.detach(), before)
    assert all(torch.equal(state[name], tensor) for name, tensor in run.built.model.state_dict().items())


def test_a_hook_gets_all_that_is_selected_counters_too(opened):
    seen = []
    run = opened(Losses(lambda task, params, conditions, step: seen.append(params) or stacked(task, params)))
    Behaviour(run)(vectors_of(run), torch.zeros(3), 0)
    assert seen[0].keys() == set(run.selected)
    assert seen[0]["1.num_batches_tracked"].shape == (3,)


def test_vectors_without_gradients_have_losses(opened):
    run = opened(Loss(sound))
    with torch.no_grad():
        assert Behaviour(run)(vectors_of(run).detach(), torch.zeros(3), 0).shape == (3,)


def detached(task, params, condition, step):
    return sound(task, {**params, "1.weight": params["1.weight"].detach()})


def writing(task, params, condition, step):
    task.model[0].bias.data += 1
    return sound(task, params)


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (lambda task, *_: None, r"loss returned None, expected a tensor of shape \(\)\. Return it\.$"),
        (lambda task, *_: 0.5, r"loss returned float, expected a tensor of shape \(\)\. Return it\.$"),
        (lambda task, params, *_: sound(task, params)[None], r"loss returned shape \(1,\), expected \(\)\. Return"),
        (lambda task, params, *_: sound(task, params) / 0, r"loss is inf at step 0 for angle 2; the largest values a"),
        (lambda task, params, *_: sound(task, params).detach(), r"loss has no gradient in '0\.weight', nor in any te"),
        (lambda task, params, *_: sound(task, params) * 0, r"loss has the gradient 0 in '0\.weight' and in all other"),
        (lambda task, params, *_: (params["0.bias"] * 0).abs().sqrt().sum() + sound(task, params),
         r"loss has a gradient in '0\.bias' that is not finite\. Lower the rate, or mend the hook\.$"),
        (detached, r"loss has no gradient in '1\.weight'\. Use the tensors of params in the pass, by torch\.func\.fun"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_one_line_with_plugin_and_tensor(opened, work, line):
    run = opened(Loss(work))
    with pytest.raises(PdiffError, match=rf"^plugin normed: {line}") as error:
        Behaviour(run, CONDITIONS)(vectors_of(run), torch.tensor([2, 0, 1]), 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (lambda task, *_: None, r"losses returned None, expected a tensor of shape \(3,\)\. Return it\.$"),
        (lambda task, params, *_: stacked(task, params).sum(), r"losses returned shape \(\), expected \(3,\)\. Return"),
        (lambda task, params, *_: stacked(task, params) / torch.tensor([1, 0, 1]), r"loss is inf at step 0 for angle"),
    ],
)
def test_what_are_no_losses_is_one_line(opened, work, line):
    run = opened(Losses(work))
    with pytest.raises(PdiffError, match=rf"^plugin normed: {line}"):
        Behaviour(run, CONDITIONS)(vectors_of(run), torch.tensor([2, 0, 1]), 0)


def test_a_loss_that_is_not_finite_names_the_largest_tensor_and_the_step(opened):
    run = opened(Loss(sound))
    vectors, entry = vectors_of(run).detach(), next(entry for entry in run.layout if entry.name == "4.bias")
    vectors[1, entry.offset] = torch.nan
    line = r"^plugin normed: loss is nan at step 7; the largest values are in '4\.bias'\. Lower the rate, or mend the h"
    with pytest.raises(PdiffError, match=line):
        Behaviour(run)(vectors, torch.zeros(3), 7)


def test_a_hook_that_changes_what_is_not_selected_is_one_line(opened):
    run = opened(Loss(writing), "module(4)")
    with pytest.raises(PdiffError, match=r"^plugin normed: loss changed '0\.bias', which is not selected\. Freeze it"):
        Behaviour(run)(vectors_of(run), torch.zeros(3), 0)


def test_losses_are_looked_at_now_and_again_and_where_the_steps_begin_anew(opened):
    run = opened(Loss(lambda task, params, condition, step: sound(task, params) * (torch.nan if step % 50 else 1)))
    vectors, behaviour = vectors_of(run), Behaviour(run)
    behaviour(vectors, torch.zeros(3), 50)
    assert behaviour(vectors, torch.zeros(3), 51).isnan().all()
    for step in (101, 1):
        with pytest.raises(PdiffError, match=f"loss is nan at step {step};"):
            behaviour(vectors, torch.zeros(3), step)


def test_a_plugin_without_the_hook_is_told_by_what_needs_it(opened):
    run = opened()
    assert not has_loss(run)
    with pytest.raises(PdiffError, match=r"^fit\.decoder: needs the hook loss, which the plugin normed lacks\. Def"):
        check_has_loss(run, "fit.decoder")
    for hook in (Loss(sound), Losses(stacked)):
        run = opened(hook)
        assert has_loss(run)
        check_has_loss(run, "fit.decoder")


def test_a_selection_without_a_parameter_is_refused(opened):
    run = opened(Loss(sound), "regex(running_mean)")
    with pytest.raises(PdiffError, match=r"^select: got 'regex\(running_mean\)', which selects no parameter, so th"):
        Behaviour(run)
