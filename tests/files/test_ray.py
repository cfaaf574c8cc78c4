"""Zoos of Ray Tune: every checkpoint of every trial, with what the trial says of it."""

import json
import shutil

import pytest
import torch

from pdiff.runtime.errors import PdiffError

PARAMETERS = {
    "training::lr": 0.1,
    "model::nlin": "relu",
    "seed": 3,
    "cuda": True,
    "optim": {"type": "sgd"},
    "list": [1],
}
TRIALS = ["NN_tune_trainable_aa_00000_0_lr=0.1_2021-09-25_11-43-53", "NN_tune_trainable_aa_00010_10_lr=0.1"]


def write_trial(folder, states, first: int = 0, iterations: int = 0, **parameters) -> None:
    """Write a trial as Ray does: `first` is the number of its first checkpoint, `iterations` its iteration's."""
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps({**PARAMETERS, **parameters}, indent=2))
    lines = [
        {"training_iteration": iterations + n, "test_acc": n / 10, "config": PARAMETERS, "done": False, "nan": None}
        for n in range(len(states))
    ]
    (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for number, state in enumerate(states):
        place = folder / f"checkpoint_{first + number:06d}"
        place.mkdir()
        torch.save(state, place / "checkpoints")
        torch.save({"state": {}}, place / "optimizer")
        (place / ".is_checkpoint").write_text("")


@pytest.fixture
def zoo(tmp_path, networks):
    """Return the folder of two trials with three checkpoints each."""
    for number, name in enumerate(TRIALS):
        write_trial(tmp_path / "zoo" / name, networks[3 * number : 3 * number + 3], seed=number)
    (tmp_path / "zoo" / "experiment_state.json").write_text("{}")
    return tmp_path / "zoo"


def test_every_checkpoint_of_every_trial_is_a_network(zoo, taken, networks):
    population = taken(zoo, select="all+buffers", format="ray")
    assert len(population) == 6
    for row, state in enumerate(networks):
        assert torch.equal(population.tensor()[row], population.layout.flatten(state))


def test_files_are_told_by_their_path_and_trials_are_lineages(zoo, taken):
    provenance = taken(zoo, select="all+buffers", format="ray").provenance
    assert [record["file"] for record in provenance] == [
        f"{name}/checkpoint_00000{number}/checkpoints" for name in TRIALS for number in range(3)
    ]
    assert [record["network"] for record in provenance] == [0, 0, 0, 1, 1, 1]
    assert provenance[3]["lineage"] == TRIALS[1]


def test_columns_are_the_parameters_and_the_results_of_the_iteration(zoo, taken):
    columns = taken(zoo, select="all+buffers", format="ray").provenance[4]["columns"]
    assert columns == {
        "training::lr": 0.1, "model::nlin": "relu", "seed": 1, "cuda": True, "optim.type": "sgd",
        "training_iteration": 1, "test_acc": 0.1, "done": False,
    }  # fmt: skip


def test_columns_choose_rows_and_are_conditions(zoo, taken):
    settings = {"rows": "`training::lr` < 1 & training_iteration in [1, 2]", "conditions": ["test_acc", "seed"]}
    provenance = taken(zoo, select="all+buffers", format="ray", **settings).provenance
    assert [record["condition"] for record in provenance] == [
        {"test_acc": 0.1, "seed": 0.0}, {"test_acc": 0.2, "seed": 0.0},
        {"test_acc": 0.1, "seed": 1.0}, {"test_acc": 0.2, "seed": 1.0},
    ]  # fmt: skip
    assert "seed" not in provenance[0]["columns"]


def test_numbers_from_0_belong_to_iterations_from_1_where_more_fit_so(tmp_path, taken, networks, caplog):
    write_trial(tmp_path / "zoo" / "trial", networks[:3], iterations=1)
    provenance = taken(tmp_path / "zoo", select="all+buffers", format="ray").provenance
    assert [record["columns"]["training_iteration"] for record in provenance] == [1, 2, 3]
    assert "a checkpoint's number is taken as its training_iteration less 1" in caplog.text


def test_a_checkpoint_before_the_first_iteration_is_left_out(tmp_path, taken, networks, caplog):
    write_trial(tmp_path / "zoo" / "trial", networks[:3])
    results = tmp_path / "zoo" / "trial" / "result.json"
    results.write_text("".join(results.read_text().splitlines(keepends=True)[1:]))
    provenance = taken(tmp_path / "zoo", select="all+buffers", format="ray").provenance
    assert [record["columns"]["training_iteration"] for record in provenance] == [1, 2]
    assert "left out 1 checkpoints without a line in result.json" in caplog.text


def test_damaged_lines_and_trials_without_checkpoints_are_left_out_and_counted(zoo, taken, networks, caplog):
    results = zoo / TRIALS[0] / "result.json"
    lines = results.read_text().splitlines(keepends=True)
    results.write_text(lines[0] + lines[1][:20] + "\n" + lines[2] + "\n[]\n")
    write_trial(zoo / "NN_tune_trainable_empty", [])
    (zoo / TRIALS[1] / "params.json").write_text("{")
    population = taken(zoo, select="all+buffers", format="ray")
    assert len(population) == 5
    assert "seed" not in population.provenance[4]["columns"]
    assert population.provenance[4]["columns"]["config.seed"] == 3
    assert (
        "left out 1 trials without a checkpoint, 2 damaged lines of result.json, 1 damaged params.json, "
        "1 checkpoints without a line in result.json"
    ) in caplog.text


def test_a_single_trial_and_a_glob_of_trials_are_zoos(zoo, taken):
    assert len(taken(zoo / TRIALS[0], select="all+buffers", format="ray", folder="one")) == 3
    assert len(taken(zoo / "NN_*_00010_*", select="all+buffers", format="ray", folder="two")) == 3


def test_state_dicts_may_have_another_name(zoo, taken):
    for path in list(zoo.rglob("checkpoints")):
        path.rename(path.with_name("model.pt"))
    settings = {"type": "ray", "file": "model.pt"}
    assert len(taken(zoo, select="all+buffers", format=settings)) == 6


def test_trials_come_in_the_order_of_their_numbers(tmp_path, taken, networks):
    for number in (10, 9, 1):
        write_trial(tmp_path / "zoo" / f"trial_{number}", networks[:1])
    provenance = taken(tmp_path / "zoo", select="all+buffers", format="ray").provenance
    assert [record["lineage"] for record in provenance] == ["trial_1", "trial_9", "trial_10"]


def test_a_folder_without_trials_is_one_line(tmp_path, taken):
    (tmp_path / "zoo").mkdir()
    with pytest.raises(PdiffError, match=r"where no trial has a checkpoint \(no checkpoint_"):
        taken(tmp_path / "zoo", format="ray")


def test_a_zoo_without_results_is_one_line(zoo, taken):
    for path in zoo.rglob("result.json"):
        path.unlink()
    with pytest.raises(PdiffError, match=r"where no trial has a checkpoint \(6 checkpoints without a line"):
        taken(zoo, format="ray")


def test_a_missing_folder_is_one_line(tmp_path, taken):
    with pytest.raises(PdiffError, match=r"checkpoints\.files: got '.*zoo', expected a folder or a glob of folders"):
        taken(tmp_path / "zoo", format="ray")


def test_what_was_imported_before_a_bad_file_is_kept_and_the_import_goes_on(zoo, taken, networks, caplog):
    bad = zoo / TRIALS[1] / "checkpoint_000001" / "checkpoints"
    shutil.copy(bad, zoo / "aside")
    bad.write_bytes(b"\x80\x02damaged")
    with pytest.raises(PdiffError, match="checkpoint_000001/checkpoints"):
        taken(zoo, select="all+buffers", format="ray")
    written = (zoo.parent / "run" / "population" / "vectors.f32").read_bytes()
    assert len(written) == 4 * 4 * sum(tensor.numel() for tensor in networks[0].values() if tensor.ndim)
    shutil.copy(zoo / "aside", bad)
    whole = taken(zoo, select="all+buffers", format="ray")
    assert (zoo.parent / "run" / "population" / "vectors.f32").read_bytes().startswith(written)
    assert (whole.tensor() == taken(zoo, select="all+buffers", format="ray", folder="again").tensor()).all()


def test_a_zoo_is_fitted_and_drawn_from(zoo, fitted):
    directory = fitted(zoo, select="module(head)", format="ray", base="built")
    assert (directory.path / "samples" / "vectors.safetensors").exists()
