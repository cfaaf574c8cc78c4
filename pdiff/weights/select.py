"""The selector language: which parameters and buffers are regenerated.

`last_norms(2)`, `norms`, `head`, `all`, `regex(...)`, `module(layer4.1)`, joined by `+` (union) and `-`
(exclusion), read from left to right. `+buffers` adds the buffers (running statistics, say) of the modules
selected so far: of those with a selected tensor of their own, and of all below a module whose parameters are all
selected. A regular expression means buffers where it spells their last name, if no parameter has it, or matches no
parameter. The affine buffers of a frozen batch normalisation count as parameters. Tied tensors are one, and any of
their names means it.
"""

import difflib
import re
import warnings
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from pdiff.runtime.errors import PdiffError, known
from pdiff.weights.ties import first_names, frozen_names, state_names

# Layers with normalised weights, such as mmdet's NormedLinear, speak of norms in their names.
NO_NORMS = (nn.Linear, nn.modules.conv._ConvNd)
# What splits terms, and what does not: an escaped letter, or a set of letters of a regular expression.
SIGNS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]?|[-+()]", re.DOTALL)
LONGEST = 200  # letters of an expression in an error line
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
        raise PdiffError(f"select: got '{shown(selector)}', which leaves nothing selected. Take an exclusion away.")
    return [name for name in state_names(model) if name in chosen]


def shown(text: str) -> str:
    """Return an expression as an error line shows it: on one line, of a long one the beginning and the end."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def split_terms(selector: str) -> list[tuple[str, str]]:
    """Return the signed terms of a selector; `+` and `-` inside parentheses belong to the term.

    In a regular expression, `\\(` and `[(]` open nothing.

    Raises:
        PdiffError: a parenthesis has no counterpart.
    """
    terms, sign, start, depth = [], "+", 0, 0
    for found in SIGNS.finditer(selector):
        letter = found[0]
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter in ("+", "-") and depth == 0:
            terms.append((sign, selector[start : found.start()]))
            sign, start = letter, found.end()
    if depth and not TERM.fullmatch(selector[start:]):
        line = f"select: cannot read '{shown(selector.strip())}'. A parenthesis lacks its counterpart:"
        raise PdiffError(f"{line} add it, or write \\( for one that is meant as such.")
    return [*terms, (sign, selector[start:])]


def match_term(model: nn.Module, term: str, head: Sequence[str], chosen: set[str]) -> set[str]:
    """Return the tensor names that one term matches; `chosen` is what the terms before it selected."""
    parsed = TERM.fullmatch(term)
    if parsed is None:
        raise PdiffError(f"select: cannot read '{shown(term.strip())}'. {known(term, TERMS)}")
    word, argument = parsed["word"], parsed["argument"]
    if word not in TERMS:
        hint = f"Write module({word}) for the module. " if word in dict(model.named_modules()) else ""
        raise PdiffError(f"select: got unknown selector '{shown(word)}'. {hint}{known(word, TERMS)}")
    if (argument is not None) != (word in WITH_ARGUMENT):
        rule = f"{word}(...)" if word in WITH_ARGUMENT else f"{word} without parentheses"
        raise PdiffError(f"select: got '{shown(term.strip())}', expected {rule}.")
    return TERMS[word](model, (argument or "").strip(), head, chosen)


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
    frozen, found = set(frozen_names(model, names)), []
    selected = model.state_dict().keys() - frozen
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


def buffer_names(model: nn.Module, module_name: str = "") -> set[str]:
    """Return the buffers below a module, as far as they are in the state dict."""
    prefix, first = f"{module_name}." if module_name else "", first_names(model)
    names = (prefix + n for n, _ in model.get_submodule(module_name).named_buffers(remove_duplicate=False))
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
    if not re.fullmatch(r"\d{1,9}", argument) or not 1 <= int(argument) <= len(norms):
        raise PdiffError(f"select: got last_norms({shown(argument)}), expected a number from 1 to {len(norms)}.")
    return set().union(*(parameter_names(model, name) for name in norms[-int(argument) :]))


def _head(model, argument, head, chosen):
    if not head:
        raise PdiffError("select: this task names no head. Use module(...) with the name of the layer.")
    return set().union(*(_module(model, name, head, chosen) for name in head))


def _module(model, argument, head, chosen):
    modules = dict(model.named_modules(remove_duplicate=False))
    if not argument or argument not in modules:
        line = f"select: got module({shown(argument)}), which is not in the network."
        raise PdiffError(f"{line} {_closest(argument, modules)}")
    names = parameter_names(model, argument) or buffer_names(model, argument)
    if not names:
        raise PdiffError(f"select: module({shown(argument)}) has no parameters. {_closest(argument, modules)}")
    return names


def _regex(model, argument, head, chosen):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what later versions of Python may read another way
            pattern = re.compile(argument)
    except (re.error, OverflowError, RecursionError) as error:
        line = f"select: got regex({shown(argument)}), which is no regular expression"
        raise PdiffError(f"{line} ({shown(str(error))}).") from None
    first, parameters, buffers = first_names(model), parameter_names(model), buffer_names(model)
    found = [name for name in first if pattern.search(name)]
    names = {first[name] for name in found} & parameters
    usual = {_last(name) for name in parameters}
    spelt = {first[name] for name in found if _last(name) in argument and _last(name) not in usual}
    names |= spelt & buffers if names else {first[name] for name in found} & buffers
    if not names:
        raise PdiffError(f"select: regex({shown(argument)}) matches nothing. {_closest(argument, first)}")
    return names


def _buffers(model, argument, head, chosen):
    first, parameters = first_names(model), parameter_names(model)
    owners = {name.rpartition(".")[0] for name in first if first[name] in chosen}
    whole = _around(n for n in first if first[n] in parameters & chosen)
    whole -= _around(n for n in first if first[n] in parameters - chosen)
    buffers = buffer_names(model)
    names = {n for n in first if first[n] in buffers and (n.rpartition(".")[0] in owners or _around([n]) & whole)}
    if not names:
        raise PdiffError("select: the selected modules have no buffers. Take '+buffers' away, or put it last.")
    return {first[name] for name in names}


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _around(names: Iterable[str]) -> set[str]:
    """Return the paths of all modules around tensors; that of the network itself is empty."""
    return {".".join(parts[:end]) for parts in (name.split(".") for name in names) for end in range(len(parts))}


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
