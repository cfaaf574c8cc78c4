"""State dicts of the user, read without running any code."""

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_tensors
from pdiff.weights.checkpoints import find_checkpoints, load_state_dict

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}


class Touch:
    """Unpickling this makes a file: proof that code was run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def save(path: Path, content) -> Path:
    """Write a checkpoint file."""
    if path.suffix == ".safetensors":
        write_tensors(path, content)
    else:
        torch.save(content, path)
    return path


def same(found: dict, expected: dict) -> bool:
    """Say whether two state dicts are equal."""
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_state_dict_comes_back_from_every_kind_of_file(tmp_path, suffix):
    assert same(load_state_dict(save(tmp_path / f"a{suffix}", STATE)), STATE)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": STATE, "epoch": 3, "name": "a"},
        {"model": STATE, "optimizer": {"lr": 0.1}},
        {"state_dict": {"model": STATE}},
        {**STATE, "epoch": 3},
        OrderedDict(STATE),
        {"meta": {"seed": 0}, "state_dict": OrderedDict(STATE), "message_hub": {"lr": [0.1, 0.2]}},
    ],
)
def test_a_nested_state_dict_is_found(tmp_path, content):
    assert same(load_state_dict(save(tmp_path / "a.pth", content)), STATE)


def test_parameters_come_back_as_tensors(tmp_path):
    content = {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in STATE.items()}
    assert same(load_state_dict(save(tmp_path / "a.pth", content)), STATE)


def test_a_prefix_is_taken_away_where_it_is(tmp_path):
    path = save(tmp_path / "a.pth", {"module.a.weight": STATE["a.weight"], "a.count": STATE["a.count"]})
    assert same(load_state_dict(path, "module."), STATE)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    path = save(tmp_path / "a.pth", {"state_dict": STATE, "extra": Touch(tmp_path / "proof")})
    with pytest.raises(PdiffError, match=r"a\.pth: .*holds objects other than tensors, .* Save the state dict"):
        load_state_dict(path)
    assert not (tmp_path / "proof").exists()


def test_a_bare_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Touch(tmp_path / "proof")))
    with pytest.raises(PdiffError, match=r"a\.pt: "):
        load_state_dict(tmp_path / "a.pt")
    assert not (tmp_path / "proof").exists()


def test_the_pickle_that_is_refused_would_have_run_code(tmp_path):
    path = save(tmp_path / "a.pth", Touch(tmp_path / "proof"))
    torch.load(path, weights_only=False)
    assert (tmp_path / "proof").exists()


def test_a_whole_module_is_refused(tmp_path):
    with pytest.raises(PdiffError, match=r"a\.pth: .*holds objects other than tensors"):
        load_state_dict(save(tmp_path / "a.pth", nn.Linear(2, 2)))


@pytest.mark.parametrize("content", [3, [torch.zeros(1)], {}, {"epoch": 3}, {"state_dict": {}}, torch.zeros(2)])
def test_a_file_without_state_dict_is_refused(tmp_path, content):
    with pytest.raises(PdiffError, match=r"a\.pth: holds no state dict, neither at the top nor under state_dict"):
        load_state_dict(save(tmp_path / "a.pth", content))


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_truncated_file_is_refused_by_name(tmp_path, name):
    path = save(tmp_path / name, STATE)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(PdiffError, match=rf"{name}: .*(damaged|corrupt)"):
            load_state_dict(path)


def test_a_truncated_file_of_the_old_format_is_refused_by_name(tmp_path):
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "a.pth").read_bytes()
    for length in range(0, len(whole), 10):
        (tmp_path / "a.pth").write_bytes(whole[:length])
        with pytest.raises(PdiffError, match=r"a\.pth: "):
            load_state_dict(tmp_path / "a.pth")


def test_a_flipped_byte_is_refused_by_name_or_harmless(tmp_path):
    path = save(tmp_path / "a.pth", STATE)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            load_state_dict(path)
        except PdiffError as error:
            assert "a.pth: " in str(error)  # noqa: PT017  (most flips are in padding and change nothing)


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("text", [None, "version https://git-lfs.github.com/spec/v1\n", "hello\n"])
def test_a_file_that_is_missing_or_is_text_is_refused_by_name(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(PdiffError, match=rf"{name}: .*(missing|damaged|corrupt)"):
        load_state_dict(tmp_path / name)


def touch(folder: Path, *names: str) -> None:
    """Make empty files."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_the_checkpoints_of_a_folder_come_in_numerical_order(tmp_path):
    touch(tmp_path, "e10.pth", "e9.pt", "e2.safetensors", "log.txt", "e1.pth.part")
    assert [path.name for path in find_checkpoints(str(tmp_path))] == ["e2.safetensors", "e9.pt", "e10.pth"]


def test_a_glob_takes_the_checkpoints_that_match(tmp_path):
    touch(tmp_path, "a1.pth", "a2.pth", "b1.pth", "a1.txt")
    assert [path.name for path in find_checkpoints(f"{tmp_path}/a*")] == ["a1.pth", "a2.pth"]


def test_a_glob_goes_below_folders(tmp_path):
    for seed in (10, 9):
        touch(tmp_path / f"seed{seed}", "last.pth")
    found = find_checkpoints(f"{tmp_path}/**/*.pth")
    assert [path.parent.name for path in found] == ["seed9", "seed10"]


def test_a_folder_with_brackets_in_its_name_is_taken_literally(tmp_path):
    touch(tmp_path / "run[1]", "a.pth")
    assert [path.name for path in find_checkpoints(str(tmp_path / "run[1]"))] == ["a.pth"]


@pytest.mark.parametrize("pattern", ["absent", "absent/*.pth", "."])
def test_a_pattern_that_matches_nothing_is_refused(tmp_path, pattern):
    line = r"^checkpoints\.files: got '.*', which matches no \.safetensors, \.pth, \.pt file\.$"
    with pytest.raises(PdiffError, match=line):
        find_checkpoints(str(tmp_path / pattern))
