"""Checkpoint files of every format, objects beside the weights left out, damage told."""

import argparse
import collections
import datetime
import decimal
import fractions
import functools
import itertools
import logging
import pathlib
import pickle
import random
import types
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pdiff.files.archives import read_content
from pdiff.files.stored import Stored
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_tensors

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}
BESIDE = [
    argparse.Namespace(lr=0.1, data=pathlib.Path("d")),
    types.SimpleNamespace(lr=0.1),
    collections.defaultdict(list, a=[1]),
    collections.deque([1]),
    collections.Counter("ab"),
    collections.UserDict(a=1),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.timedelta(1),
    decimal.Decimal("1.5"),
    fractions.Fraction(1, 2),
    uuid.UUID(int=1),
    logging.getLogger("a"),
    itertools.count(3),
    functools.partial(dict, a=1),
    random.Random(0),
    random.getstate(),
    {1, 2},
    frozenset("a"),
    slice(1, 2),
    range(3),
    1j,
    b"abc",
    bytearray(b"abc"),
    ValueError("a"),
    int,
    ...,
    np.arange(3),
    np.float64(1),
    np.array(["a"]),
    np.dtype("float32"),
    np.random.default_rng(0),
    np.random.RandomState(0),
    torch.device("cuda:1"),
    torch.float32,
    torch.Size([1]),
    torch.strided,
    torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.1),
    nn.CrossEntropyLoss(),
]


def same(found: dict, expected: dict) -> bool:
    """Say whether the tensors of a file are the expected ones."""
    return found.keys() == expected.keys() and all(torch.equal(found[name].load(), expected[name]) for name in expected)


def state_in(path: Path) -> dict:
    """Return the tensors in the only mapping of a file, or in the one called `state_dict`."""
    content = read_content(path)
    return content.get("state_dict", content)


@pytest.mark.parametrize("value", BESIDE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", [2, 5])
def test_objects_beside_the_weights_are_left_out(tmp_path, value, protocol):
    torch.save({"state_dict": STATE, "beside": value}, tmp_path / "a.pth", pickle_protocol=protocol)
    assert same(state_in(tmp_path / "a.pth"), STATE)


@pytest.mark.parametrize(
    "mapping", [collections.OrderedDict(STATE), collections.defaultdict(None, STATE), collections.Counter(STATE)]
)
def test_mappings_of_other_classes_keep_their_tensors(tmp_path, mapping):
    torch.save({"state_dict": mapping}, tmp_path / "a.pth")
    assert same(state_in(tmp_path / "a.pth"), STATE)


TENSORS = {
    "parameter": nn.Parameter(torch.ones(2)),
    "transposed": torch.arange(6.0).reshape(2, 3).t(),
    "strided": torch.arange(10.0)[1:7:2],
    "expanded": torch.ones(1).expand(3),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(2.0),
    **{str(t): torch.ones(2, dtype=t) for t in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool)},
    **{str(t): torch.ones(2).to(t) for t in (torch.complex64, torch.uint16, torch.float8_e4m3fn)},
}


@pytest.mark.parametrize("legacy", [False, True])
def test_every_tensor_comes_back_as_torch_reads_it(tmp_path, legacy):
    torch.save(TENSORS, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    for name, found in read_content(tmp_path / "a.pth").items():
        assert (found.dtype, found.shape) == (TENSORS[name].dtype, tuple(TENSORS[name].shape))
        assert torch.equal(found.load().cdouble(), TENSORS[name].detach().cdouble())


def test_tensors_of_one_storage_are_told_by_their_place(tmp_path):
    tensor = torch.arange(6.0)
    torch.save({"a": tensor, "b": tensor, "c": tensor[:3], "d": tensor.clone()}, tmp_path / "a.pth")
    found = read_content(tmp_path / "a.pth")
    assert found["a"].place == found["b"].place
    assert len({one.place for one in found.values()}) == 3
    assert found["a"].mark() == found["d"].mark() != found["c"].mark()


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "on the meta device, without values"),
        (torch.ones(2, dtype=torch.complex64).conj(), "conjugated or negated lazily"),
    ],
)
def test_other_kinds_of_tensors_are_noted(tmp_path, tensor, kind):
    torch.save({"a": tensor}, tmp_path / "a.pth")
    found = read_content(tmp_path / "a.pth")["a"]
    assert isinstance(found, Stored)
    assert found.kind == kind


def test_an_archive_that_was_packed_again_is_read(tmp_path):
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name.replace("a/", "c/", 1), old.read(name))
    assert same(read_content(tmp_path / "b"), STATE)


def test_an_archive_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_content(tmp_path / "a.pth"), STATE)


def test_the_other_byte_order_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(PdiffError, match=r"b\.pth: was written on a machine of the other byte order"):
        read_content(tmp_path / "b.pth")


def test_names_that_the_metadata_of_safetensors_tells_of_are_there(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"wte": torch.ones(2)}, metadata={"head": "wte", "format": "pt"})
    assert same(read_content(tmp_path / "a.safetensors"), {"wte": torch.ones(2), "head": torch.ones(2)})


def damaged(path: Path) -> str:
    """Return the line over a file."""

    def read() -> None:
        for found in read_content(path).values():
            found.load()

    with pytest.raises(PdiffError) as raised:
        read()
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_that_is_cut_short_is_refused(tmp_path, kind):
    path = tmp_path / "a.pth"
    if kind == "safetensors":
        write_tensors(path, STATE)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        damaged(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_flipped_byte_is_refused_by_name_or_harmless(tmp_path, legacy):
    path = tmp_path / "a.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for position in range(0, len(whole), 23):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            read_content(path)
        except PdiffError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017  (most flips are in padding and change nothing)


@pytest.mark.parametrize(
    ("content", "way"),
    [
        (nn.Linear(3, 2), ".state_dict()"),
        ({"epoch": 1, "model": nn.Linear(3, 2)}, "['model'].state_dict()"),
    ],
)
def test_a_network_that_was_pickled_whole_is_refused_with_the_way_out(tmp_path, content, way):
    torch.save(content, tmp_path / "a.pth")
    line = damaged(tmp_path / "a.pth")
    assert "holds a network that was pickled whole (torch.nn.modules.linear.Linear), and reading these" in line
    assert f"torch.load('{tmp_path / 'a.pth'}', 'cpu', weights_only=False){way}, 'new.pth')" in line


def test_the_way_out_of_a_pickled_network_works(tmp_path, monkeypatch):
    torch.save({"model": nn.Linear(3, 2)}, tmp_path / "a.pth")
    code = damaged(tmp_path / "a.pth").partition('python -c "')[2].rpartition('"')[0]
    monkeypatch.chdir(tmp_path)
    exec(code)
    assert read_content(tmp_path / "new.pth").keys() == {"weight", "bias"}


class Settings:
    """A class of the file's author."""


def test_an_object_of_an_unknown_class_is_named_with_the_key_of_the_weights(tmp_path):
    torch.save({"net": STATE, "settings": Settings()}, tmp_path / "a.pth")
    line = damaged(tmp_path / "a.pth")
    assert f"holds objects that are no tensors ({__name__}.Settings), and reading these could run code." in line
    assert "weights_only=False)['net'], 'new.pth')" in line


def test_a_file_of_python_2_is_read(tmp_path):
    torch.save({"a": torch.ones(2), "b": {1, 2}}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert b"__builtin__" in (tmp_path / "a.pth").read_bytes()  # protocol 2 has Python 2's names
    assert read_content(tmp_path / "a.pth")["a"].load().tolist() == [1, 1]


def test_a_pickle_that_torch_did_not_write_is_refused(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"a": 1}))
    assert "is a pickle, but none of torch.save. Where you trust it: python -c" in damaged(tmp_path / "a.pth")
