"""The selector language: which parameters and buffers are regenerated.

`last_norms(2)`, `norms`, `head`, `all`, `regex(...)`, `module(layer4.1)`, joined by `+` (union) and `-`
(exclusion), read from left to right. `+buffers` adds the buffers (running statistics, say) of the modules
selected so far. The affine buffers of a frozen batch normalisation count as parameters.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from pdiff.runtime.errors import PdiffError, known

# Layers with normalised weights, such as mmdet's NormedLinear, speak of norms in their names.
NO_NORMS = (nn.Linear, nn.modules.conv._ConvNd)
TERM = re.compile(r"\s*(?P<word>\w+)\s*(?:\((?P<argument>.*)\))?\s*", re.DOTALL)


def select(model: nn.Module, selector: str, head: Sequence[str] = ()) -> list[str]:
    """Return the names of the tensors that `selector` means, in the order of the network's state dict.

    Args:
        model: the network.
        selector: an expression of the selector language.
        head: names of the modules that the task calls its head.

    Raises:
        PdiffError: the expression cannot be read, or one of its terms matches nothing.
    """
    if not isinstance(selector, str):
        raise PdiffError(f"select: got {selector!r}, expected an expression. {known('', TERMS)}")
    chosen: set[str] = set()
    for sign, term in split_terms(selector):
        matched = match_term(model, term, head, chosen)
        chosen = chosen - matched if sign == "-" else chosen | matched
    if not chosen:
        raise PdiffError(f"select: got {selector!r}, which leaves nothing selected. Take an exclusion away.")
    return [name for name in state_names(model) if name in chosen]


def split_terms(selector: str) -> list[tuple[str, str]]:
    """Return the signed terms of a selector; `+` and `-` inside parentheses belong to the term."""
    terms, sign, start, depth = [], "+", 0, 0
    for position, letter in enumerate(selector):
        depth += (letter == "(") - (letter == ")")
        if letter in "+-" and depth == 0:
            terms.append((sign, selector[start:position]))
            sign, start = letter, position + 1
    terms.append((sign, selector[start:]))
    return terms


def match_term(model: nn.Module, term: str, head: Sequence[str], chosen: set[str]) -> set[str]:
    """Return the tensor names that one term matches; `chosen` is what the terms before it selected."""
    parsed = TERM.fullmatch(term)
    if parsed is None:
        raise PdiffError(f"select: cannot read {term.strip()!r}. {known(term, TERMS)}")
    word, argument = parsed["word"], parsed["argument"]
    if word not in TERMS:
        raise PdiffError(f"select: got unknown selector {word!r}. {known(word, TERMS)}")
    if (argument is not None) != (word in WITH_ARGUMENT):
        rule = f"{word}(...)" if word in WITH_ARGUMENT else f"{word} without parentheses"
        raise PdiffError(f"select: got {term.strip()!r}, expected {rule}.")
    return TERMS[word](model, (argument or "").strip(), head, chosen)


def first_names(model: nn.Module) -> dict[str, str]:
    """Return for every name of the state dict the first name of its tensor, which is another for a tied one."""
    state, first = model.state_dict(keep_vars=True), {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def state_names(model: nn.Module) -> list[str]:
    """Return every name of the state dict once, tied tensors under their first name."""
    return list(dict.fromkeys(first_names(model).values()))


def is_norm(module: nn.Module) -> bool:
    """Say whether a module is a normalisation layer with tensors of its own, by the names of its classes."""
    named = any("norm" in cls.__name__.lower() for cls in type(module).__mro__)
    return named and not isinstance(module, NO_NORMS) and any(True for _ in own_tensors(module))


def own_tensors(module: nn.Module) -> Iterable[str]:
    """Yield the names of the tensors that the module itself holds, its children's left out."""
    yield from (name for name, p in module.named_parameters(recurse=False) if p is not None)
    yield from (name for name, b in module.named_buffers(recurse=False) if b is not None)


def training_modules(
    model: nn.Module, names: Sequence[str], among: Callable[[nn.Module], bool] = lambda module: True
) -> list[nn.Module]:
    """Return the modules that hold a selected parameter themselves: those that a fine-tuning puts into training mode.

    Args:
        model: the network.
        names: the selection.
        among: says of a module whether it is to be looked at; default: of all.

    Raises:
        PdiffError: the mode would change a buffer, a running statistic say, that is not selected.
    """
    selected, found = set(names), []
    frozen = set(model.state_dict()) - selected
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if not among(module) or selected.isdisjoint(prefix + n for n, _ in module.named_parameters(recurse=False)):
            continue
        drifting = [prefix + name for name, _ in module.named_buffers(recurse=False) if prefix + name in frozen]
        if drifting:
            raise PdiffError(
                f"collect.finetune.mode: got 'train', which changes {drifting[0]}, which is not selected. "
                "Add +buffers to the selector or use mode eval."
            )
        found.append(module)
    return found


def parameter_names(model: nn.Module, module_name: str = "") -> set[str]:
    """Return the parameters below a module; weight and bias of a frozen normalisation are among them."""
    module = model.get_submodule(module_name)
    prefix = f"{module_name}." if module_name else ""
    names = {prefix + name for name, _ in module.named_parameters(remove_duplicate=False)}
    for path, child in module.named_modules(remove_duplicate=False):
        if is_norm(child):
            below = prefix + (f"{path}." if path else "")
            names |= {below + name for name, _ in child.named_buffers(recurse=False) if name in ("weight", "bias")}
    first = first_names(model)
    return {first[name] for name in names if name in first}


def _all(model, argument, head, chosen):
    return parameter_names(model)


def _norm_modules(model: nn.Module) -> list[str]:
    norms = [name for name, module in model.named_modules() if is_norm(module) and parameter_names(model, name)]
    if not norms:
        raise PdiffError("select: the network has no normalisation layer with parameters. Use module(...).")
    return norms


def _norms(model, argument, head, chosen):
    return set().union(*(parameter_names(model, name) for name in _norm_modules(model)))


def _last_norms(model, argument, head, chosen):
    norms = _norm_modules(model)
    if not argument.isdecimal() or not 1 <= int(argument) <= len(norms):
        raise PdiffError(f"select: got last_norms({argument}), expected a number from 1 to {len(norms)}.")
    return set().union(*(parameter_names(model, name) for name in norms[-int(argument) :]))


def _head(model, argument, head, chosen):
    if not head:
        raise PdiffError("select: this task names no head. Use module(...) with the name of the layer.")
    return set().union(*(_module(model, name, head, chosen) for name in head))


def _module(model, argument, head, chosen):
    modules = dict(model.named_modules(remove_duplicate=False))
    if argument not in modules:
        raise PdiffError(f"select: got module({argument}), which is not in the network. {_closest(argument, modules)}")
    names = parameter_names(model, argument)
    if not names:
        raise PdiffError(f"select: module({argument}) has no parameters. {_closest(argument, modules)}")
    return names


def _regex(model, argument, head, chosen):
    try:
        pattern = re.compile(argument)
    except re.error as error:
        raise PdiffError(f"select: got regex({argument}), which is no regular expression ({error}).") from None
    names = {name for name in parameter_names(model) if pattern.search(name)}
    if not names:
        raise PdiffError(f"select: regex({argument}) matches nothing. {_closest(argument, parameter_names(model))}")
    return names


def _buffers(model, argument, head, chosen):
    owners = {name.rpartition(".")[0] for name in chosen}
    names = {name for name in _buffer_names(model) if name.rpartition(".")[0] in owners} - chosen
    if not names:
        raise PdiffError("select: the selected modules have no buffers. Take '+buffers' away, or put it last.")
    return names


def _buffer_names(model: nn.Module) -> set[str]:
    return set(state_names(model)) & {name for name, _ in model.named_buffers()}


def _closest(word: str, names: Iterable[str]) -> str:
    names = [name for name in names if name]
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.3) or sorted(names)[:3]
    return f"Closest names: {', '.join(close) or 'none'}."


WITH_ARGUMENT = ("last_norms", "module", "regex")
TERMS: dict[str, Callable] = {
    "all": _all,
    "norms": _norms,
    "last_norms": _last_norms,
    "head": _head,
    "module": _module,
    "regex": _regex,
    "buffers": _buffers,
}
