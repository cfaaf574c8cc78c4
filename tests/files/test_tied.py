"""Files of networks with tied weights: a tensor may stand in them under any of its names, with one value."""

from collections.abc import Container
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from pdiff.files.reader import Reader
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors
from pdiff.stages.collect import collect
from pdiff.task.plugins import import_plugin
from pdiff.weights.ties import state_names

FIRST, ALIAS = "wte.weight", "lm_head.weight"
PLUGIN = """
import torch
from torch import nn
from pdiff import Metric, Task, hookimpl


class Net(nn.Module):
    def __init__(self, tie="parameter"):
        super().__init__()
        self.wte, self.body, self.lm_head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        weight = self.wte.weight
        if tie == "module":
            self.lm_head = self.wte
        else:
            memory = {"memory": weight.data, "transposed": weight.data.T}
            self.lm_head.weight = weight if tie == "parameter" else nn.Parameter(memory[tie])


@hookimpl
def build(cfg):
    return Task(Net(**cfg.task), {"select": 0, "test": 0}, Metric("accuracy"))


@hookimpl
def evaluate(task, candidates, split):
    pass
"""
TIES = ("parameter", "memory", "transposed", "module")


def clones(network: nn.Module) -> dict:
    """Return the state dict without any memory that is shared."""
    return {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}


def without(network: nn.Module, left_out: Container[str]) -> dict:
    """Return the state dict without some names, and without memory that is shared."""
    return {name: tensor for name, tensor in clones(network).items() if name not in left_out}


def aliases(network: nn.Module) -> set[str]:
    """Return the names of tied tensors that are not the first."""
    return set(network.state_dict()) - set(state_names(network))


WRITERS = {
    "torch.save": (".pth", lambda network, path: torch.save(network.state_dict(), path)),
    "torch.save of clones": (".pth", lambda network, path: torch.save({"state_dict": clones(network)}, path)),
    "save_file of clones": (".safetensors", lambda network, path: save_file(clones(network), path)),
    "save_model": (".safetensors", save_model),
    "first names alone": (".pth", lambda network, path: torch.save(without(network, aliases(network)), path)),
    "the other name alone": (".pth", lambda network, path: torch.save(without(network, [FIRST]), path)),
}
WRITABLE = [(tie, writer) for tie in TIES for writer in WRITERS if (tie, writer) != ("transposed", "save_model")]


@pytest.fixture
def network(tmp_path):
    """Return a function from a tie and a seed to a network."""
    (tmp_path / "tied.py").write_text(PLUGIN)

    def make(tie: str, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return import_plugin(str(tmp_path / "tied.py")).Net(tie)

    return make


@pytest.fixture
def imported(tmp_path):
    """Return a function that imports the files of a folder into a run of a tie and a selection."""

    def make(tie: str, select: str, **settings) -> Run:
        config = {"plugin": str(tmp_path / "tied.py"), "device": "cpu", "task": {"tie": tie}, "select": select}
        config["checkpoints"] = {"files": str(tmp_path / "files"), **settings}
        run = Run(resolve(config), RunDirectory(tmp_path / "run"))
        collect(run)
        return run

    return make


def write(folder: Path, writer: str, networks) -> None:
    """Write networks into a folder."""
    suffix, save = WRITERS[writer]
    folder.mkdir()
    for number, network in enumerate(networks):
        save(network, str(folder / f"net{number}{suffix}"))


@pytest.mark.parametrize(("tie", "writer"), WRITABLE)
def test_every_kind_of_file_gives_all_names(tmp_path, network, tie, writer):
    given = network(tie, seed=1)
    write(tmp_path / "files", writer, [given])
    file = next((tmp_path / "files").iterdir())
    found, wanted = Reader(network(tie)).read(file), given.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    other = network(tie)
    Reader(other).load(file)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    ("tie", "writer", "select"),
    [
        ("parameter", "save_model", f"regex({ALIAS})"),
        ("parameter", "torch.save", "all"),
        ("transposed", "torch.save", f"module({ALIAS.partition('.')[0]})"),
        ("module", "save_file of clones", "all"),
        ("memory", "the other name alone", f"regex({FIRST})"),
    ],
)
def test_files_become_a_population_of_the_one_tensor(tmp_path, network, imported, tie, writer, select):
    given = [network(tie) for _ in range(3)]
    with torch.no_grad():
        for number, one in enumerate(given):
            one.wte.weight += number
    write(tmp_path / "files", writer, given)
    run = imported(tie, select)
    assert ALIAS not in run.population.layout.names
    for one, vector in zip(given, run.population.tensor(), strict=True):
        assert torch.equal(run.layout.unflatten(vector)[FIRST], one.wte.weight)
    base, state = read_tensors(run.directory.base), given[0].state_dict()
    assert all(torch.equal(base[name], tensor) for name, tensor in state.items())
    run.candidates(run.population.tensor()).load(run.task.model, 2)
    state = given[2].state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in run.task.model.state_dict().items())


@pytest.mark.parametrize("writer", ["save_model", "torch.save", "the other name alone"])
def test_a_frozen_tie_may_have_any_name_in_the_file(tmp_path, network, imported, writer):
    given = [network("parameter") for _ in range(3)]
    with torch.no_grad():
        for number, one in enumerate(given):
            one.body.weight += number
    write(tmp_path / "files", writer, given)
    run = imported("parameter", "module(body)")
    assert torch.equal(run.task.model.lm_head.weight, given[0].wte.weight)
    assert len(run.population) == 3


@pytest.mark.parametrize(
    ("tie", "select"), [("parameter", f"regex({FIRST})"), ("parameter", "module(body)"), ("transposed", "all")]
)
def test_two_values_for_one_tensor_are_refused_with_both_names(tmp_path, network, imported, tie, select):
    state = clones(network(tie))
    state[ALIAS] += 1
    (tmp_path / "files").mkdir()
    torch.save(state, tmp_path / "files" / "net0.pth")
    with pytest.raises(PdiffError) as caught:
        imported(tie, select)
    line = f"'{FIRST}' and '{ALIAS}' differ, but are one tensor in the network. Give a file of this network."
    assert str(caught.value) == f"{tmp_path / 'files' / 'net0.pth'}: {line}"
