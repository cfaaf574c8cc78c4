"""A population on disk is whole after any interruption, and no damage goes unseen."""

import json
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pdiff.runtime.errors import PdiffError
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population

LAYOUT = Layout.of({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a population of three rows."""
    population = Population.create(tmp_path / "population", LAYOUT)
    for step, row in enumerate(ROWS[:3]):
        population.append(row, {"step": step, "metric": 0.1 * step, "note": "ünder\u2028line\n"})
    return tmp_path / "population"


@contextmanager
def full_disk(size: int):
    """Let no file grow beyond `size` bytes inside the block."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def extend(path, data: bytes) -> None:
    """Write at the end of a file, as an interrupted append does."""
    with open(path, "ab") as file:
        file.write(data)


def check_that_the_next_append_repairs(folder, rows: int) -> None:
    """Open, append, open again: the rows before and the new one are there."""
    population = Population.open(folder)
    assert len(population) == rows
    population.append(ROWS[3], {"step": 99})
    again = Population.open(folder)
    assert torch.equal(again.tensor(), torch.cat([ROWS[:rows], ROWS[3:]]))
    assert [record["step"] for record in again.provenance] == [*range(rows), 99]
    assert again.vectors_path.stat().st_size == (rows + 1) * 8 * 4


def test_rows_provenance_and_layout_come_back(folder):
    population = Population.open(folder)
    assert population.layout == LAYOUT
    assert torch.equal(population.tensor(), ROWS[:3])
    assert population.vectors.dtype == np.float32
    assert [record["metric"] for record in population.provenance] == [0.0, 0.1, 0.2]
    assert population.provenance[0]["note"] == "ünder\u2028line\n"


def test_a_row_is_on_disk_when_append_returns(tmp_path):
    population = Population.create(tmp_path, LAYOUT)
    for count, row in enumerate(ROWS, 1):
        population.append(row, {})
        assert torch.equal(Population.open(tmp_path).tensor(), ROWS[:count])


def test_the_vectors_are_a_memory_map_that_cannot_be_written(folder):
    vectors = Population.open(folder).vectors
    assert isinstance(vectors, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        vectors[0, 0] = 1


def test_an_empty_population_has_no_row(tmp_path):
    Population.create(tmp_path, LAYOUT)
    population = Population.open(tmp_path)
    assert len(population) == 0
    assert population.vectors.shape == (0, 8)
    assert population.tensor().shape == (0, 8)


def test_create_drops_what_was_there(folder):
    Population.create(folder, LAYOUT)
    check_that_the_next_append_repairs(folder, rows=0)


def test_a_vector_on_another_type_or_with_gradient_is_stored_as_float32(tmp_path):
    population = Population.create(tmp_path, LAYOUT)
    population.append(ROWS[0].half().requires_grad_(), {})
    assert torch.equal(population.tensor()[0], ROWS[0].half().float())


@pytest.mark.parametrize("length", [0, 1, 3])
def test_truncate_forgets_the_last_rows(folder, length):
    Population.open(folder).truncate(length)
    check_that_the_next_append_repairs(folder, rows=length)


@pytest.mark.parametrize("tail", [b"\x01", b"\x01" * 31, b"\x01" * 32, b"\x01" * 100])
def test_bytes_behind_the_last_row_are_ignored_and_the_next_append_repairs(folder, tail):
    extend(folder / "vectors.f32", tail)
    check_that_the_next_append_repairs(folder, rows=3)


@pytest.mark.parametrize("line", [b"{", b'{"step": 3, "crc32": 12', b'{"step": 3, "crc32": 12}', b"\x00" * 40])
def test_a_torn_last_line_is_ignored_and_the_next_append_repairs(folder, line):
    extend(folder / "vectors.f32", ROWS[3].numpy().tobytes())
    extend(folder / "provenance.jsonl", line)
    check_that_the_next_append_repairs(folder, rows=3)


def test_an_append_cut_at_any_byte_leaves_the_rows_before_it(folder):
    lines = (folder / "provenance.jsonl").read_bytes()
    start = lines[:-1].rindex(b"\n") + 1
    for length in range(start, len(lines)):
        (folder / "provenance.jsonl").write_bytes(lines[:length])
        assert torch.equal(Population.open(folder).tensor(), ROWS[:2])


def test_a_full_disk_adds_nothing_and_is_one_line(folder):
    population = Population.open(folder)
    with full_disk(3 * 32 + 5), pytest.raises(PdiffError, match=r"cannot be written \(.*\)\. Make room .* --resume"):
        population.append(ROWS[3], {})
    assert len(population) == 3
    check_that_the_next_append_repairs(folder, rows=3)


@pytest.mark.parametrize("shape", [(7,), (9,), (1, 8), ()])
def test_a_vector_of_another_length_is_refused(folder, shape):
    with pytest.raises(PdiffError, match=r"^population: got a vector \(.*\), expected \(8,\)\.$"):
        Population.open(folder).append(torch.zeros(shape), {})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_a_vector_that_is_not_finite_is_kept_for_the_gate(folder, value):
    Population.open(folder).append(torch.full((8,), value, dtype=torch.float64), {})
    kept = Population.open(folder).tensor()
    assert len(kept) == 4
    assert not torch.isfinite(kept[3]).any()


@pytest.mark.parametrize("size", [0, 1, 95])
def test_a_truncated_vectors_file_is_refused(folder, size):
    data = (folder / "vectors.f32").read_bytes()
    (folder / "vectors.f32").write_bytes(data[:size])
    with pytest.raises(PdiffError, match=rf"vectors\.f32: got {size} bytes, expected 96; the file is truncated"):
        Population.open(folder)


def test_a_missing_vectors_file_is_refused(folder):
    (folder / "vectors.f32").unlink()
    with pytest.raises(PdiffError, match=r"vectors\.f32: got 0 bytes, expected 96"):
        Population.open(folder)


def test_every_flipped_byte_of_the_vectors_is_found_in_its_row(folder):
    data = (folder / "vectors.f32").read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        (folder / "vectors.f32").write_bytes(changed)
        with pytest.raises(PdiffError, match=rf"vectors\.f32: row {position // 32} differs from its checksum"):
            Population.open(folder)


@pytest.mark.parametrize(
    ("line", "telling"),
    [
        ("{", r"is corrupt \(.*\)\. Collect again\."),
        ("", r"is corrupt \(.*\)\. Collect again\."),
        ('{"step": 0}', r"is corrupt \(a line without checksum\)\. Collect again\."),
        ("3", r"is corrupt \(a line without checksum\)\. Collect again\."),
    ],
)
def test_a_corrupt_line_before_the_last_is_refused(folder, line, telling):
    lines = (folder / "provenance.jsonl").read_text().splitlines()
    (folder / "provenance.jsonl").write_text("\n".join([line, *lines[1:]]) + "\n")
    with pytest.raises(PdiffError, match=rf"provenance\.jsonl: {telling}"):
        Population.open(folder)


def test_lines_that_were_rewritten_with_other_spaces_do_not_spoil_the_next_append(folder):
    lines = [json.loads(line) for line in (folder / "provenance.jsonl").read_text().splitlines()]
    compact = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (folder / "provenance.jsonl").write_text(compact)
    check_that_the_next_append_repairs(folder, rows=3)


@pytest.mark.parametrize("name", ["layout.json", "provenance.jsonl"])
def test_a_missing_file_is_refused_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(PdiffError, match=rf"{name}: cannot be read"):
        Population.open(folder)


RECORD = {"name": "w", "shape": [8], "dtype": "float32", "offset": 0}


@pytest.mark.parametrize(
    "layout",
    [
        3,
        {"name": "w"},
        [{"name": "w"}],
        [{**RECORD, "dtype": "float31"}],
        [{**RECORD, "dtype": "nn"}],
        [{**RECORD, "shape": 8}],
        [{**RECORD, "shape": ["8"]}],
        [{**RECORD, "offset": "0"}],
    ],
)
def test_a_layout_file_that_holds_no_layout_is_refused(folder, layout):
    (folder / "layout.json").write_text(json.dumps(layout))
    with pytest.raises(PdiffError, match=r"layout\.json: is no layout \(.*\)\. Collect again\."):
        Population.open(folder)


def test_a_truncated_layout_file_is_refused(folder):
    text = (folder / "layout.json").read_text()
    for length in range(0, len(text) - 2, 10):
        (folder / "layout.json").write_text(text[:length])
        with pytest.raises(PdiffError, match=r"layout\.json: is not valid JSON"):
            Population.open(folder)


@pytest.mark.parametrize("value", [torch.zeros(1), float("nan"), {1, 2}])
def test_provenance_that_is_no_json_is_refused_and_nothing_is_added(folder, value):
    population = Population.open(folder)
    before = folder.joinpath("vectors.f32").read_bytes()
    with pytest.raises(PdiffError, match="is no JSON"):
        population.append(ROWS[3], {"step": value})
    assert folder.joinpath("vectors.f32").read_bytes() == before


def test_rows_are_mapped_once_for_each_length(folder):
    population = Population.open(folder)
    three = population.tensor()
    assert population.tensor() is three
    assert torch.equal(three, ROWS[:3])
    population.append(ROWS[3], {})
    assert torch.equal(population.tensor(), ROWS[:4])
    population.truncate(0)
    assert population.tensor().shape == (0, LAYOUT.size)


def test_conditions_are_those_of_the_provenance(tmp_path):
    population = Population.create(tmp_path, LAYOUT)
    assert population.conditions is None
    for angle in (0.5, 1):
        population.append(ROWS[0], {"condition": {"angle": angle}})
    conditions = Population.open(tmp_path).conditions
    assert conditions.names == ("angle",)
    assert conditions.values.tolist() == [[0.5], [1.0]]


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([{"a": 1.0}, None], "condition of row 1: got no condition, expected numbers by name"),
        ([None, {"a": 1.0}], "condition of row 0: got no condition, expected numbers by name"),
        ([{"a": 1.0}, {"b": 1.0}], "condition of row 1: got the name 'b'. Known: a."),
    ],
)
def test_conditions_of_some_rows_only_or_of_other_names_are_refused(tmp_path, conditions, words):
    population = Population.create(tmp_path, LAYOUT)
    for condition in conditions:
        population.append(ROWS[0], {} if condition is None else {"condition": condition})
    with pytest.raises(PdiffError, match=words):
        population.conditions


def test_a_population_that_takes_another_in_is_as_if_its_rows_had_been_added_one_by_one(tmp_path):
    layout = Layout.of({"w": torch.zeros(3)})
    own, other, whole = (Population.create(tmp_path / name, layout) for name in ("own", "other", "whole"))
    for number in range(5):
        vector, provenance = torch.full((3,), float(number)), {"step": number, "word": "ä"}
        (own if number < 2 else other).append(vector, provenance)
        whole.append(vector, provenance)
    own.extend(other)
    own.append(torch.ones(3), {"step": 5})
    whole.append(torch.ones(3), {"step": 5})
    for file in ("vectors.f32", "provenance.jsonl"):
        assert (own.folder / file).read_bytes() == (whole.folder / file).read_bytes()
    assert Population.open(own.folder).provenance == whole.provenance


def test_what_is_told_of_rows_later_stands_in_their_provenance(folder):
    population = Population.open(folder)
    population.tell([{"network": number} for number in (0, 0, 1)])
    found = Population.open(folder)
    assert found.provenance == population.provenance
    assert [(record["step"], record["network"]) for record in found.provenance] == [(0, 0), (1, 0), (2, 1)]
    found.append(ROWS[3], {"step": 3})
    assert len(Population.open(folder)) == 4
