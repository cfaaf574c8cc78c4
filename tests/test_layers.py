"""The house: which way imports point, how many floors there are, how long the longest chain of files is."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the ground up; rooms of one floor stand side by side and do not import each other.
FLOORS = (
    ("runtime",),
    ("weights",),
    ("canonical", "engine", "task", "files"),
    ("analysis",),
    ("run",),
    ("gates", "report"),
    ("stages",),
    ("plan", "scaffold", "sweep", "testing"),
    ("commands",),
    ("__init__", "__main__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# What importing a face costs nothing by: it only names modules, which are imported when a name is asked for.
FACES = ("pdiff", *(f"pdiff.{room}" for rooms in FLOORS[:-1] for room in rooms))


def modules(folder: Path = ROOT / "pdiff") -> dict[str, Path]:
    """Return the files of the core by dotted name, but for the template of a plugin."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        if "template" not in path.parts:
            name = ".".join(["pdiff", *path.relative_to(folder).with_suffix("").parts])
            found[name.removesuffix(".__init__")] = path
    return found


def is_typing(node: ast.AST) -> bool:
    """Say whether a node is `if TYPE_CHECKING:`, whose imports never happen."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(node: ast.AST, typing: bool) -> Iterator[str]:
    """Yield the dotted names that a file imports, at its top or inside functions; those for types alone if asked."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif typing or not is_typing(child):
            yield from imports(child, typing)


def needs(path: Path, known: dict[str, Path], typing: bool) -> set[str]:
    """Return the modules of the core that a file imports, the faces of folders left out."""
    found = set()
    for name in imports(ast.parse(path.read_text(encoding="utf-8")), typing):
        if name.partition(".")[0] == "pdiff":
            found.add(name if name in known else name.rpartition(".")[0])
    return found


def room(module: str) -> str:
    """Return the room that a module stands in."""
    return "__init__" if module == "pdiff" else module.split(".")[1]


def arrows_up(known: dict[str, Path]) -> list[tuple[str, str]]:
    """Return the imports that point up, or to another room of the same floor."""
    return [
        (module, needed)
        for module, path in known.items()
        for needed in needs(path, known, typing=True)
        if room(needed) != room(module) and FLOOR[room(needed)] >= FLOOR[room(module)]
    ]


def longest_chain(known: dict[str, Path]) -> list[str]:
    """Return the longest chain of files that import one another; raise a `RecursionError` for a circle."""
    edges = {module: needs(path, known, typing=False) - set(FACES) for module, path in known.items()}

    @cache
    def chain(module: str) -> tuple[str, ...]:
        return (module, *max((chain(needed) for needed in sorted(edges[module])), key=len, default=()))

    return list(max(map(chain, known), key=len))


def test_every_room_has_a_floor_and_there_are_at_most_ten():
    assert {room(module) for module in modules()} == set(FLOOR)
    assert len(FLOORS) <= 10


def test_imports_point_down_only():
    assert len(modules()) > 80
    assert arrows_up(modules()) == []


@pytest.mark.parametrize("line", ["import pdiff.stages.fit", "from pdiff.gates import codec", "from pdiff import Task"])
def test_the_check_sees_an_arrow_that_points_up(tmp_path, line):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "late.py").write_text(f"def late():\n    {line}\n")
    known = {**modules(), "pdiff.engine.late": tmp_path / "engine" / "late.py"}
    assert [module for module, _ in arrows_up(known)] == ["pdiff.engine.late"]


def test_the_longest_chain_of_files_has_at_most_ten():
    chain = longest_chain({**modules(), **{f"tools.{path.stem}": path for path in (ROOT / "tools").glob("*.py")}})
    assert len(chain) <= 10, " -> ".join(chain)


def test_there_is_no_circle_of_files_even_for_types():
    known = modules()
    edges = {module: needs(path, known, typing=True) - set(FACES) for module, path in known.items()}
    left = dict(edges)
    while free := [module for module, needed in left.items() if not needed & set(left)]:
        for module in free:
            del left[module]
    assert left == {}


def test_faces_import_nothing_but_the_way_to_their_names():
    for face in FACES:
        path = modules().get(face)
        if path is not None and path.name == "__init__.py" and face != "pdiff.scaffold":
            assert needs(path, modules(), typing=True) <= {"pdiff.runtime.lazy"}
