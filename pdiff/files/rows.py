"""Which rows of a table a text means: `step==86 & test_accuracy>0.5`. The text is read as Python, and never run."""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pdiff.runtime.errors import PdiffError, known

WHERE = "checkpoints.rows"
EXAMPLE = "expected comparisons of columns, such as step==86 & test_accuracy>0.5 & activation in ['relu', 'tanh']"
# Texts stay as they are; a name between backticks becomes one that Python can read; & binds looser than ==, as "and".
WORDS = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`[^`]*`|&&?|\|\|?|~""")
PLAIN = {"&": " and ", "&&": " and ", "|": " or ", "||": " or ", "~": " not "}
COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda cell, choices: cell in choices,
    ast.NotIn: lambda cell, choices: cell not in choices,
}
SUMS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}


def rows_where(expression: str, columns: Mapping[str, Sequence[Any]], count: int) -> list[int]:
    """Return the numbers of the rows for which an expression holds.

    Comparisons (`== != < <= > >=`, `in`, `not in`), `&`, `|` and `~` (or `and`, `or`, `not`), numbers, texts in quotes,
    `+ - * / %`, and names of columns, between backticks where they hold more than letters, digits, `_` and dots. A
    comparison with a missing cell (empty, NaN) is false.

    Args:
        expression: the text.
        columns: cells by column.
        count: of the rows.

    Raises:
        PdiffError: it is no such expression, names a column that is not there, compares a number with a text, or
            holds for no row.
    """
    found = Rows(expression, columns, count).found()
    if not found:
        raise PdiffError(f"{WHERE}: got {expression!r}, which holds for none of {count} rows. Mend it.")
    return found


class Rows:
    """An expression over the columns of a table; see `rows_where`."""

    def __init__(self, expression: str, columns: Mapping[str, Sequence[Any]], count: int):
        self.expression, self.columns, self.count = expression, columns, count
        self.quoted: dict[str, str] = {}  # what stands in for a name between backticks

    def found(self) -> list[int]:
        """Return the numbers of the rows for which it holds."""
        try:
            tree = ast.parse(WORDS.sub(self.word, self.expression).strip(), mode="eval").body
            truth = self.truth(tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise PdiffError(f"{WHERE}: got {self.expression!r}, {EXAMPLE}. Mend it.") from None
        return [row for row, holds in enumerate(truth) if holds]

    def word(self, match: re.Match) -> str:
        """Return what Python is to read in place of a word."""
        text = match[0]
        if not text.startswith("`"):
            return PLAIN.get(text, text)
        name = f"quoted_{len(self.quoted)}_"
        self.quoted[name] = text[1:-1]
        return name

    def truth(self, node: ast.AST) -> list[bool]:
        """Return for which rows a part of the expression holds."""
        if isinstance(node, ast.BoolOp):
            parts = [self.truth(value) for value in node.values]
            join = all if isinstance(node.op, ast.And) else any
            return [join(row) for row in zip(*parts, strict=True)]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return [not holds for holds in self.truth(node.operand)]
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = [self.compare(*part) for part in zip(sides, node.ops, sides[1:], strict=False)]
            return [all(row) for row in zip(*parts, strict=True)]
        return [isinstance(cell, bool) and cell for cell in self.logical(node)]

    def logical(self, node: ast.AST) -> Sequence[Any]:
        """Return the cells of a column of true and false, which needs no comparison."""
        cells = self.cells(node)
        if not all(isinstance(cell, bool) for cell in cells if not missing(cell)):
            raise ValueError("a column without comparison")
        return cells

    def compare(self, left: ast.AST, op: ast.cmpop, right: ast.AST) -> list[bool]:
        """Return for which rows one comparison holds."""
        function = COMPARISONS.get(type(op))
        if function is None:
            raise ValueError("no comparison")
        choosing = isinstance(op, ast.In | ast.NotIn)
        first = self.cells(left)
        second = [self.choices(right)] * self.count if choosing else self.cells(right)
        held, comparable, there = [], False, False
        for a, b in zip(first, second, strict=True):
            whole = not missing(a) and not missing(b)
            same = whole and any(is_text(a) == is_text(choice) for choice in (b if choosing else [b]))
            there, comparable = there or whole, comparable or same
            held.append(bool(function(a, b)) if same else whole and isinstance(op, ast.NotEq | ast.NotIn))
        if there and not comparable:
            a, b = next((a, b) for a, b in zip(first, second, strict=True) if not missing(a) and not missing(b))
            raise PdiffError(
                f"{WHERE}: got {self.expression!r}, which compares {a!r} with {b!r}, expected numbers with numbers and "
                "texts with texts. Put texts into quotes, and numbers not."
            )
        return held

    def choices(self, node: ast.AST) -> list[Any]:
        """Return the members of a list."""
        if not isinstance(node, ast.List | ast.Tuple | ast.Set) or not node.elts:
            raise ValueError("no list")
        return [self.constant(element) for element in node.elts]

    def constant(self, node: ast.AST) -> Any:
        """Return a number or text that stands in the expression."""
        value = ast.literal_eval(node)
        if not isinstance(value, int | float | str):
            raise ValueError("no number or text")
        return value

    def cells(self, node: ast.AST) -> Sequence[Any]:
        """Return the value of a part of the expression in each row."""
        if isinstance(node, ast.Name | ast.Attribute):
            return self.column(node)
        if isinstance(node, ast.BinOp):
            function = SUMS.get(type(node.op))
            if function is None:
                raise ValueError("no sum")
            both = zip(self.cells(node.left), self.cells(node.right), strict=True)
            return [calculated(function, a, b) for a, b in both]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return [calculated(operator.sub, 0, cell) for cell in self.cells(node.operand)]
        return [self.constant(node)] * self.count

    def column(self, node: ast.Name | ast.Attribute) -> Sequence[Any]:
        """Return the cells of a column."""
        name = ast.unparse(node)
        name = self.quoted.get(name, name)
        if name not in self.columns:
            raise PdiffError(f"{WHERE}: got column {name!r} in {self.expression!r}. {known(name, self.columns)}")
        return self.columns[name]


def missing(cell: Any) -> bool:
    """Say whether a cell holds nothing."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def is_text(cell: Any) -> bool:
    """Say whether a cell holds a text."""
    return isinstance(cell, str)


def calculated(function: Callable[[float, float], float], a: Any, b: Any) -> float | None:
    """Return a sum, product, ... of two cells; None where there is none."""
    if missing(a) or missing(b) or is_text(a) or is_text(b):
        return None
    try:
        return function(a, b)
    except (ZeroDivisionError, OverflowError):
        return None
