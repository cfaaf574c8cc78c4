"""Files are whole or absent, and a damaged one is named in one line."""

import hashlib

import pytest
import torch

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import (
    explain_write_errors,
    new_folder,
    read_json,
    read_tensors,
    read_tensors_and_metadata,
    read_text,
    sha256,
    write_bytes,
    write_json,
    write_rows,
    write_tensors,
    write_text,
)
from pdiff.testing.simulated_cuda import simulated_cuda

TENSORS = {
    "float": torch.tensor([[0.1, -0.0], [1e-45, 3e38]]),
    "half": torch.tensor([0.1, 65504.0], dtype=torch.float16),
    "brain": torch.tensor([0.1, 3e38], dtype=torch.bfloat16),
    "counter": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "empty": torch.empty(0, 3),
}


@pytest.fixture
def file(tmp_path):
    """Return a safetensors file."""
    write_tensors(tmp_path / "file.safetensors", TENSORS)
    return tmp_path / "file.safetensors"


def test_text_and_json_come_back_as_they_were_written(tmp_path):
    value = {"a": [1, 2.5, None], "ü": "é\n"}
    write_json(tmp_path / "new" / "folder" / "a.json", value)
    write_text(tmp_path / "a.txt", "één\n")
    assert read_json(tmp_path / "new" / "folder" / "a.json") == value
    assert read_text(tmp_path / "a.txt") == "één\n"


def test_a_write_replaces_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    for data in (b"old and long", b"new"):
        write_bytes(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_an_interrupted_write_left_aside_is_not_read(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    (tmp_path / "a.part").write_bytes(b"half of a new on")
    assert (tmp_path / "a").read_bytes() == b"old"
    write_bytes(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PdiffError, match=r"file/a: cannot be written \(.*\)\. Make room or give another --work-dir"):
        write_bytes(tmp_path / "file" / "a", b"")


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == 1


@pytest.mark.parametrize("text", ["", '{"a": 1', "{'a': 1}", "nonsense"])
def test_broken_json_is_refused_by_name(tmp_path, text):
    write_text(tmp_path / "a.json", text)
    with pytest.raises(PdiffError, match=r"a\.json: is not valid JSON .* Repeat the stage"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_text, read_json, read_tensors])
def test_a_missing_file_is_refused_by_name(tmp_path, read):
    with pytest.raises(PdiffError, match=r"absent: cannot be read"):
        read(tmp_path / "absent")


def test_text_of_another_encoding_is_refused_by_name(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(PdiffError, match=r"a\.txt: cannot be read .*utf-8"):
        read_text(tmp_path / "a.txt")


def test_tensors_come_back_bit_by_bit(file):
    found = read_tensors(file)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_tensors_that_share_or_stride_their_storage_can_be_written(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3).requires_grad_()
    tensors = {"whole": whole, "same": whole, "turned": whole.T, "row": whole[1]}
    write_tensors(tmp_path / "a.safetensors", tensors)
    found = read_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_tensors_of_a_gpu_are_written_by_one_copy_to_the_same_file(tmp_path):
    tensors = {"a": torch.randn(3, 2).T, "b": torch.arange(4), "c": torch.zeros(2, requires_grad=True)}
    write_tensors(tmp_path / "cpu.safetensors", tensors)
    with simulated_cuda() as gpu:
        away = {name: tensor.cuda() for name, tensor in tensors.items()}
        gpu.reset()
        write_tensors(tmp_path / "gpu.safetensors", away)
        assert gpu.copies_to_host == 1
    assert (tmp_path / "gpu.safetensors").read_bytes() == (tmp_path / "cpu.safetensors").read_bytes()


def test_rows_written_part_by_part_are_those_of_a_tensor_written_whole(tmp_path):
    rows = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    write_tensors(tmp_path / "whole", {"rows": rows})
    write_rows(tmp_path / "parts", "rows", rows.shape, rows.split(2))
    assert torch.equal(read_tensors(tmp_path / "parts")["rows"], rows)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_rows_that_are_not_all_there_replace_nothing(tmp_path):
    write_rows(tmp_path / "a", "rows", (2, 3), [torch.ones(2, 3)])
    with pytest.raises(ValueError, match="expected those of"):
        write_rows(tmp_path / "a", "rows", (2, 3), [torch.zeros(1, 3)])
    assert torch.equal(read_tensors(tmp_path / "a")["rows"], torch.ones(2, 3))


def test_metadata_comes_back(tmp_path, file):
    write_tensors(tmp_path / "a.safetensors", {}, {"made": "here"})
    assert read_tensors_and_metadata(tmp_path / "a.safetensors") == ({}, {"made": "here"})
    assert read_tensors_and_metadata(file)[1] == {}


def test_a_truncated_safetensors_file_is_refused_at_every_length(file):
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(PdiffError, match=r"file\.safetensors: cannot be read .* truncated or corrupt"):
            read_tensors(file)


@pytest.mark.parametrize("position", [0, 7, 8, 20])
def test_a_flipped_byte_in_the_header_is_refused(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(PdiffError, match=r"file\.safetensors: cannot be read"):
        read_tensors(file)


def test_sha256_is_that_of_the_whole_file(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_new_folder_is_whole_or_absent(tmp_path):
    with pytest.raises(ValueError, match="half"), new_folder(tmp_path / "folder") as aside:  # noqa: PT012
        (aside / "file").write_text("half")
        raise ValueError("half")
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "folder") as aside:
        (aside / "file").write_text("whole")
        assert not (tmp_path / "folder").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "file").read_text() == "whole"


def test_a_folder_that_another_process_was_faster_with_stays(tmp_path):
    with new_folder(tmp_path / "folder") as slow:
        (slow / "file").write_text("second")
        with new_folder(tmp_path / "folder") as fast:
            (fast / "file").write_text("first")
    assert (tmp_path / "folder" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_new_folder_in_the_place_of_a_file_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PdiffError, match=r"file: cannot be written \(Not a directory\)\. Go away\.$"),
        explain_write_errors(tmp_path / "file", "Go away."),
        new_folder(tmp_path / "file"),
    ):
        pass
