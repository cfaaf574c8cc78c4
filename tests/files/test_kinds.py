"""What a file is, by its bytes."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pdiff.files.archives import read_content
from pdiff.files.kinds import kind_of
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_tensors

STATE = {"a": torch.ones(2)}


def refused(path) -> str:
    """Return what the line over a file says it is."""
    with pytest.raises(PdiffError) as raised:
        kind_of(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{path}: ")


def packed(names, opener, add) -> bytes:
    """Return an archive with empty members."""
    file = io.BytesIO()
    with opener(file) as archive:
        for name in names:
            add(archive, name)
    return file.getvalue()


def zipped(*names: str) -> bytes:
    """Return a zip archive."""
    return packed(names, lambda file: zipfile.ZipFile(file, "w"), lambda archive, name: archive.writestr(name, b""))


def tarred(*names: str) -> bytes:
    """Return a tar archive."""
    add = lambda archive, name: archive.addfile(tarfile.TarInfo(name))  # noqa: E731
    return packed(names, lambda file: tarfile.open(fileobj=file, mode="w"), add)


def numpy_file() -> bytes:
    """Return an array of numpy in a file."""
    file = io.BytesIO()
    np.save(file, np.zeros(2))
    return file.getvalue()


@pytest.mark.parametrize("name", ["a", "a.pth", "a.safetensors", "a.PTH", "a.pth.tar", "a.ckpt", "a.bin", "a.th"])
def test_the_suffix_says_nothing(tmp_path, name):
    torch.save(STATE, tmp_path / name)
    assert kind_of(tmp_path / name) == "zip"
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=False)
    assert kind_of(tmp_path / name) == "legacy"
    write_tensors(tmp_path / name, STATE)
    assert kind_of(tmp_path / name) == "safetensors"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "is a pointer of Git LFS in place"),
        (b"\n<!DOCTYPE html><html>", "is a page of the web (HTML) or XML, which a download brought"),
        (b'<?xml version="1.0"?><Error/>', "is a page of the web (HTML) or XML, which a download brought"),
        (b"", "is empty. Copy or download it again."),
        (bytes(100), "is nothing but zeros. Copy or download it again."),
        (b'{"a": 1}', "is JSON, no tensors."),
        (json.dumps({"weight_map": {}}).encode(), "is the index of a network in parts. Join the parts"),
        (b"hello\nworld\n", "is text that begins with 'hello'."),
        ("lr: ä\n".encode(), "is text that begins with 'lr: ä'."),
        (bytes(range(1, 100)), "is damaged, or no checkpoint: it begins with b'\\x01\\x02"),
        (gzip.compress(b"a", mtime=0), "is compressed (gzip). Unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "is an HDF5 file, as Keras writes them."),
        (b"GGUF\x03\0\0\0", "is a GGUF file of llama.cpp."),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0" + bytes(9), "is a network of ONNX."),
        (numpy_file(), "is an array of numpy."),
        (b"\x89PNG\r\n", "is an image."),
        (tarred("a.pth"), "is a tar archive. Unpack it"),
        (tarred("sys_info", "storages", "tensors", "pickle"), "is a file of torch before 0.2."),
        (zipped("a.npy", "b.npy"), "is an archive of numpy's arrays. Turn them into a state dict: torch.save({"),
        (zipped("policy.pth", "data"), "is a zip archive with data, policy.pth. Unpack it"),
        (zipped("model.weights.h5"), "is a network of Keras."),
        (zipped("m/.data/extern_modules"), "is an archive of torch.package."),
        (zipped("MAR-INF/MANIFEST.json"), "is an archive of TorchServe."),
        (b"PK\x03\x04abc", "is a zip archive, as torch.save writes them, that is cut short, still written or corrupt."),
        (b"\xff\0\0\0\0\0\0\0{", "is a safetensors file that is cut short, or corrupt."),
        (b"\x80\x04}.", "is a pickle, but none of torch.save."),
        (b"(dp0\n.", "is a pickle, but none of torch.save."),
    ],
)
def test_what_is_no_checkpoint_is_named_for_what_it_is(tmp_path, data, words):
    (tmp_path / "a.pth").write_bytes(data)
    assert refused(tmp_path / "a.pth").startswith(words)


def test_what_is_no_file_is_named_for_what_it_is(tmp_path):
    assert refused(tmp_path / "absent").startswith("cannot be read (No such file or directory). It is missing")
    (tmp_path / "link").symlink_to("absent")
    assert refused(tmp_path / "link") == "is a link to 'absent', which is missing. Mend the link, or name another file."
    assert refused(tmp_path) == "is a folder, expected a file. Name one of those in it: link."


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_archive_comes_with_what_makes_a_state_dict_of_it(tmp_path, monkeypatch):
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "a.pth")
    line = refused(tmp_path / "a.pth")
    assert line.startswith("is a TorchScript archive. Turn it into a state dict: python -c ")
    code = line.partition('python -c "')[2].rpartition('"')[0]
    monkeypatch.chdir(tmp_path)
    exec(code)
    assert read_content(tmp_path / "new.pth").keys() == {"weight", "bias"}


@pytest.mark.parametrize("record", ["a/archive_format", "serialized_exported_program.json"])
def test_an_archive_of_torch_export_is_named(tmp_path, record):
    (tmp_path / "a.pt").write_bytes(zipped(record, "a/models/model.json"))
    assert refused(tmp_path / "a.pt").startswith("is an archive of torch.export. Turn it into a state dict: python -c ")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800"])
def test_what_no_file_can_be_called_cannot_be_read(name):
    with pytest.raises(PdiffError, match=r": cannot be read \(.*\)\. It is missing, or may not be read\."):
        kind_of(Path(name))
