"""Finding what may change in a network without a change of its function, by following its units through one pass.

The pass is recorded by `torch.export`. The inputs, the outputs and every tensor that is not selected have an order of
their own; whatever units are left that no operation ties to these are free.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Node

from pdiff.canonical.axes import Atom, Axis, extent, pin, resolve, whole
from pdiff.canonical.call import Call, Value, pinned
from pdiff.canonical.rules import READ, rule_of
from pdiff.runtime.errors import PdiffError
from pdiff.weights.memory import memory_of
from pdiff.weights.units import Gain, Group, Place, Symmetries

WAY_OUT = "Implement the hook symmetries, or set fit.canonical to none."


def trace(model: nn.Module, inputs: tuple, names: Sequence[str]) -> Symmetries:
    """Return what may change in the tensors called `names` without a change of what a network returns.

    Args:
        model: stays as it is; followed in evaluation mode.
        inputs: one batch: `model(*inputs)` is the pass that is followed.
        names: the selected tensors, tied ones under one of their names.

    Raises:
        PdiffError: the pass cannot be recorded, or no unit is free.
    """
    program = recorded(model, inputs)
    tensors = _tensors(model, program, names)
    permuted, scaled = Pass(tensors, names, scale=False), Pass(tensors, names, scale=True)
    permuted.follow(program.graph)
    scaled.follow(program.graph)
    groups, notes = tuple(permuted.groups()), tuple(dict.fromkeys(permuted.notes))
    if not groups:
        why = f" ({notes[0]})" if notes else ""
        raise PdiffError(
            f"fit.canonical: got {len(names)} selected tensors of which no unit can change places{why}, "
            f"expected layers with all that reads them. {WAY_OUT}"
        )
    return Symmetries(groups, tuple(scaled.gains()), notes)


def recorded(model: nn.Module, inputs: tuple) -> torch.export.ExportedProgram:
    """Return a pass through a copy of a network in evaluation mode.

    Raises:
        PdiffError: it cannot be recorded; the line names the module.
    """
    inside: list[str] = []
    try:
        model = copy.deepcopy(model).eval()
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))  # returns None: changes nothing
            module.register_forward_hook(lambda *_: inside.__delitem__(-1))
        return torch.export.export(model, inputs, strict=False)
    except Exception as error:  # whatever a network's own code raises when its tensors have no values
        where = inside[-1] if inside and inside[-1] else type(model).__name__
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PdiffError(f"fit.canonical: {where} cannot be followed: {why}. {WAY_OUT}") from error


def _tensors(model: nn.Module, program: torch.export.ExportedProgram, names: Sequence[str]) -> dict[str, str]:
    """Return by placeholders of a pass the network's tensors, a tied one by the name that it is selected by."""
    own = {**dict(model.named_buffers(remove_duplicate=False)), **dict(model.named_parameters(remove_duplicate=False))}
    selected = {memory_of(own[name]): name for name in names}
    signature = program.graph_signature
    placeholders = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return {
        node: selected.get(memory_of(own[name]), name) if name in own else name for node, name in placeholders.items()
    }


class Pass:
    """One pass through a network, its units permuted or scaled.

    Args:
        tensors: the network's tensors by the names of their placeholders.
        names: of the selected tensors.
        scale: whether units are scaled; else they are permuted.
    """

    def __init__(self, tensors: Mapping[str, str], names: Sequence[str], scale: bool):
        self.tensors = tensors
        self.names = frozenset(names)
        self.scale = scale
        self.parameters: dict[str, Value] = {}  # in the order of their first use
        self.read: dict[tuple[str, int], bool] = {}
        self.notes: list[str] = []
        self._values: dict[Node, object] = {}

    def follow(self, graph: torch.fx.Graph) -> None:
        """Go through the operations in their order."""
        for node in graph.nodes:
            if node.op == "output":
                Call("output", {"": self._given(node.args)}, None, self.scale).pin()
            elif node.op == "call_function":
                self._values[node] = self._result(node)

    def _given(self, argument: object) -> object:
        if isinstance(argument, Node):
            return self._values[argument] if argument in self._values else self._source(argument)
        if isinstance(argument, list | tuple):
            return [self._given(part) for part in argument]
        return argument

    def _source(self, node: Node) -> object:
        """Return what comes from outside: a tensor of the network, or an input or a constant."""
        name, like = self.tensors.get(node.name), node.meta.get("val")
        if name not in self.names:
            return pinned(like)
        if name not in self.parameters:
            self.parameters[name] = Value(tuple(map(whole, like.shape)), name)
        value = self.parameters[name]
        if [sum(map(extent, axis)) for axis in value.axes] != list(like.shape):  # tied in another form
            pin(*value.axes)
            return pinned(like)
        return value

    def _result(self, node: Node) -> object:
        given, result = self._given(node.args), node.meta.get("val")
        if node.target.__name__ == "getitem":
            return given[0][given[1]]
        operation = node.target
        if not isinstance(operation, torch._ops.OpOverload):
            call = Call(str(operation), {"": [given, self._given(list(node.kwargs.values()))]}, result, self.scale)
            return self._unknown(call, node)
        arguments = [argument.name for argument in operation._schema.arguments]
        given = dict(zip(arguments, given, strict=False)) | {k: self._given(v) for k, v in node.kwargs.items()}
        name, inplace = operation._schema.name.removeprefix("aten::"), operation._schema.is_mutable
        call = Call(name.removesuffix("_"), given, result, self.scale, inplace)
        if result is None and not inplace:  # it checks something
            return None
        if self.scale:
            self._note_roles(call)
        rule = rule_of(call, torch.Tag.pointwise in operation.tags and isinstance(result, Tensor))
        done = rule(call) if rule else None
        return self._unknown(call, node) if done is None else done

    def _unknown(self, call: Call, node: Node) -> object:
        free, result = call.pin(), pinned(call.result)
        if free and not self.scale:
            modules = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
            where = modules[-1] if modules and modules[-1] else "network"
            self.notes.append(f"{where}: {node.target}: its units keep their order")
        return result

    def _note_roles(self, call: Call) -> None:
        """Remember which axes of the network's tensors make units and which read them; none can do both."""
        for value in call.values():
            for axis, units in enumerate(value.axes if value.parameter else ()):
                read = value is call["weight"] and READ.get(call.name) == axis
                if self.read.setdefault((value.parameter, axis), read) != read:
                    pin(units)

    def groups(self) -> Iterator[Group]:
        """Yield the units that are free to change places."""
        for places in self._free().values():
            yield Group(places[0].tensor, len(places[0].entries), tuple(places))

    def gains(self) -> Iterator[Gain]:
        """Yield the units that are free to be scaled."""
        for places in self._free().values():
            made = tuple(place for place in places if not self.read[place.tensor, place.axis])
            read = tuple(place for place in places if self.read[place.tensor, place.axis])
            if made and read:
                yield Gain(made[0].tensor, len(made[0].entries), made, read)

    def _free(self) -> dict[Atom, list[Place]]:
        axes = [(name, number, axis) for name, x in self.parameters.items() for number, axis in enumerate(x.axes)]
        while sum(_pin_inner(segment) for *_, axis in axes for segment in resolve(axis)):
            pass
        found: dict[Atom, list[Place]] = {}
        for name, number, axis in axes:
            for atom, entries in _entries(axis):
                found.setdefault(atom, []).append(Place(name, number, entries))
        return found


def _pin_inner(segment: Iterable[Atom]) -> bool:
    """Leave but the outermost free units of a segment free (heads, not what is in each); say if that changed any."""
    inner = [atom for atom in segment if not atom.pinned][1:]
    return pin((tuple(inner),))


def _entries(axis: Axis) -> Iterator[tuple[Atom, Tensor]]:
    """Yield the free units of an axis, and the entries of each `(n, k)`."""
    offset = 0
    for segment in resolve(axis):
        entries = torch.arange(offset, offset + extent(segment)).reshape([atom.size for atom in segment])
        for place, atom in enumerate(segment):
            if not atom.pinned:
                yield atom, entries.movedim(place, 0).reshape(atom.size, -1)
        offset += extent(segment)
