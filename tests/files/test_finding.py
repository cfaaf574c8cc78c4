"""Which files a pattern means, and which of them count."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from pdiff.files.finding import distinct, find_checkpoints
from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError


def touch(folder: Path, *names: str) -> None:
    """Make empty files."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def names(pattern) -> list[str]:
    """Return the names of the files that a pattern means."""
    return [path.name for path in find_checkpoints(str(pattern))]


def test_the_checkpoints_of_a_folder_come_in_numerical_order(tmp_path):
    touch(tmp_path, "e10.pth", "e9.pt", "e2.safetensors", "log.txt", "e1.pth.part", ".hidden.pth", "e²3.ckpt")
    (tmp_path / "folder.pth").mkdir()
    assert names(tmp_path) == ["e2.safetensors", "e9.pt", "e10.pth", "e²3.ckpt"]


@pytest.mark.parametrize("name", ["a.PTH", "a.pth.tar", "a.ckpt", "a.bin", "a.th", "a.Safetensors"])
def test_a_folder_has_checkpoints_of_many_suffixes(tmp_path, name):
    touch(tmp_path, name, "a.txt")
    assert names(tmp_path) == [name]


def test_a_folder_without_a_known_suffix_has_its_checkpoints_by_their_bytes(tmp_path):
    touch(tmp_path, "a.txt")
    torch.save({"a": torch.ones(1)}, tmp_path / "weights")
    assert names(tmp_path) == ["weights"]


@pytest.mark.parametrize("name", ["a1.pth", "a1", "a1.anything"])
def test_a_glob_and_a_file_are_taken_at_their_word(tmp_path, name):
    touch(tmp_path, name, "b1.pth")
    assert names(tmp_path / "a*") == names(tmp_path / name) == [name]


def test_a_glob_goes_below_folders(tmp_path):
    for seed in (10, 9):
        touch(tmp_path / f"seed{seed}", "last.pth")
    found = find_checkpoints(f"{tmp_path}/**/*.pth")
    assert [path.parent.name for path in found] == ["seed9", "seed10"]


def test_a_folder_and_a_file_with_brackets_are_taken_literally(tmp_path):
    touch(tmp_path / "run[1]", "a.pth")
    assert names(tmp_path / "run[1]") == names(tmp_path / "run[1]" / "a.pth") == ["a.pth"]


def test_a_glob_below_a_folder_with_brackets_is_told_how_to_write_them(tmp_path):
    touch(tmp_path / "run[1]", "a.pth")
    with pytest.raises(PdiffError, match=r"brackets mean one letter of several\. Write '.*run\[\[\]1\]/\*\.pth' for a"):
        find_checkpoints(f"{tmp_path}/run[1]/*.pth")
    assert names(f"{tmp_path}/run[[]1]/*.pth") == ["a.pth"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("absent", "which matches no file. Check the path, and quote a glob for the shell."),
        ("absent/*.pth", "which matches no file."),
        ("empty", "a folder without a checkpoint (.safetensors, .pth, "),
        ("*", "which matches folders alone. Name the files in them: "),
        ("full/a.pth, full/b.pth", "which is several paths. Give one glob for all, or a folder."),
        ("full/*.pth ", "which has blanks at an end. Take them away."),
    ],
)
def test_a_pattern_that_means_no_file_is_refused_with_why(tmp_path, pattern, words):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "full", "a.pth", "b.pth")
    given = ", ".join(f"{tmp_path}/{part}" for part in pattern.split(", "))
    with pytest.raises(PdiffError) as raised:
        find_checkpoints(given)
    assert str(raised.value).startswith(f"checkpoints.files: got {given!r}, {words}")


def test_a_link_counts_as_the_file_that_it_leads_to(tmp_path, caplog):
    caplog.set_level("INFO", "pdiff")
    touch(tmp_path, "epoch_9.pth", "epoch_12.pth")
    (tmp_path / "best.pth").symlink_to("epoch_12.pth")
    assert names(tmp_path) == ["epoch_9.pth", "epoch_12.pth"]
    assert caplog.messages == ["checkpoints.files: 'best.pth' lead to others of these files, and count once"]


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "latest.pth").symlink_to("absent.pth")
    with pytest.raises(PdiffError, match=r"latest\.pth: is a link to 'absent\.pth', which is missing"):
        find_checkpoints(str(tmp_path))


@pytest.mark.parametrize("legacy", [False, True])
def test_files_with_the_same_tensors_count_once(tmp_path, caplog, legacy):
    caplog.set_level("INFO", "pdiff")
    network = nn.Linear(3, 2)
    for number in range(3):
        nn.init.normal_(network.weight)
        content = {"epoch": number, "state_dict": network.state_dict()}
        torch.save(content, tmp_path / f"epoch_{number}.pth", _use_new_zipfile_serialization=not legacy)
    shutil.copy(tmp_path / "epoch_1.pth", tmp_path / "best_1.pth")
    content = {"meta": "other", "state_dict": network.state_dict()}
    torch.save(content, tmp_path / "last.pth", _use_new_zipfile_serialization=not legacy)
    found = distinct(find_checkpoints(str(tmp_path)), Reader(network))
    assert [path.name for path in found] == ["epoch_0.pth", "epoch_1.pth", "epoch_2.pth"]
    line = "checkpoints.files: 'best_1.pth', 'last.pth' have the same tensors as others of these files, and count once"
    assert line in caplog.messages


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a/net.ckpt", "Name those in the folders below it by a glob: {folder}/**/*.ckpt."),
        ("a/adapter_config.json", "It holds adapters of peft: checkpoints.format=peft."),
        ("a/notes.md", "Check the path."),
    ],
)
def test_a_folder_of_folders_is_told_by_what_is_below(tmp_path, name, words):
    touch(tmp_path / "a", Path(name).name)
    with pytest.raises(PdiffError) as raised:
        find_checkpoints(str(tmp_path))
    assert str(raised.value).endswith(words.format(folder=tmp_path))


@pytest.mark.parametrize("pattern", ["x" * 5000, "a\0b", "\ud800"])
def test_what_no_file_can_be_called_matches_none(pattern):
    with pytest.raises(PdiffError, match="which matches no file"):
        find_checkpoints(pattern)


def test_files_of_one_name_are_told_by_their_folders(tmp_path, caplog):
    caplog.set_level("INFO", "pdiff")
    network = nn.Linear(3, 2)
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        torch.save(network.state_dict(), tmp_path / folder / "net.pth")
    assert len(distinct(find_checkpoints(f"{tmp_path}/*/net.pth"), Reader(network))) == 1
    assert "'b/net.pth', 'c/net.pth' have the same tensors" in caplog.messages[0]
