"""The command `sweep` as a user calls it."""

import csv

import pytest
import yaml

from pdiff.runtime.storage import read_json


@pytest.fixture
def config(closed, tmp_path) -> str:
    """The tiny config with conditions as a file."""
    (tmp_path / "closed.yaml").write_text(yaml.safe_dump(closed))
    return str(tmp_path / "closed.yaml")


def test_settings_run_on_one_collection_and_are_a_table_a_csv_and_a_picture(call, config, tmp_path):
    words = ["--config", config, "--vary", "engine.autoencoder.latent=4,8", "--seeds", "0,1"]
    words += ["--work-dir", tmp_path / "s"]
    done = call("sweep", *words)
    assert done.code == 0, done.err
    assert [path.name for path in (tmp_path / "s" / "collections").iterdir()] == ["closed_form"]
    names = ["latent=4,seed=0", "latent=4,seed=1", "latent=8,seed=0", "latent=8,seed=1"]
    assert sorted(path.name for path in (tmp_path / "s" / "runs").iterdir()) == names
    rows = list(csv.DictReader((tmp_path / "s" / "sweep.csv").read_text().splitlines()))
    assert [(row["run"], row["fit.seed"], row["status"]) for row in rows] == [(n, n[-1], "done") for n in names]
    assert "all runs share one population" in (tmp_path / "s" / "table.md").read_text()
    assert (tmp_path / "s" / "latent.png").is_file()
    again = call("sweep", *words)
    assert again.code == 2
    assert again.err.rstrip().endswith("was swept before. Give --resume to go on, or --overwrite to repeat it.")
    other = call("sweep", *words, "--only", "ridge", "--resume")
    assert other.code == 2
    assert "is of another sweep (only differ)" in other.err


def test_commands_are_printed_and_nothing_is_run(call, config, tmp_path):
    words = ["--config", config, "--vary", "engine.autoencoder.latent=4,8", "--work-dir", tmp_path / "s", "--print"]
    done = call("sweep", *words)
    assert done.code == 0, done.err
    first, empty, *runs = done.out.splitlines()
    assert (first.split()[-4:], empty, len(runs)) == (["--stage", "collect", "--no-gates", "--resume"], "", 2)
    assert f"--collection {tmp_path}/s/collections/closed_form --no-gates --resume" in runs[0]
    assert not (tmp_path / "s" / "runs").exists()
    assert read_json(tmp_path / "s" / "sweep.json")["runs"] == ["latent=4", "latent=8"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("engine.autoencoder.latnt=4", "error: latnt=4: engine.autoencoder: got unknown key 'latnt'"),
        ("genrate.num=4", "error: num=4: config: got unknown key 'genrate'"),
        ("fit.repeats=x", "error: repeats=x: fit.repeats: got 'x', expected an integer"),
        ("engine.autoencoder.latent=x", "error: latent=x: engine.autoencoder.latent: got 'x', expected an integer"),
        ("task.chance=0.0", "error: --vary: got task.chance, which changes the collection, of which there is one."),
    ],
)
def test_setting_that_cannot_be_is_one_line_before_anything_runs(call, config, tmp_path, word, line):
    done = call("sweep", "--config", config, "--vary", word, "--work-dir", tmp_path / "s")
    assert done.code == 2
    assert done.err.startswith(line)
    assert not (tmp_path / "s").exists()


def test_what_the_shell_left_empty_is_one_line(call, config, tmp_path):
    done = call("sweep", "--config", config, "--vary", "fit.repeats=1,2", "--seeds", "", "--work-dir", tmp_path / "s")
    assert (done.code, done.err) == (2, "error: --seeds: got '', expected integers, as in 0,1,2. Mend it.\n")
    done = call("run", "--config", config, "--collection", "", "--work-dir", tmp_path / "r")
    line = "error: --collection: got '', expected the directory of a run. Name one, or leave it out.\n"
    assert (done.code, done.err) == (2, line)
    assert not (tmp_path / "r").exists()


def test_runs_that_have_partly_failed_are_told_below_the_table(call, config, tmp_path):
    done = call("sweep", "--config", config, "--vary", "fit.num=15,300", "--seeds", "0,1", "--work-dir", tmp_path / "s")
    assert done.code == 2
    table = (tmp_path / "s" / "table.md").read_text()
    assert "| num=15 | 2 | 15 |" in table
    assert "- 2 of 4 runs have not ended well, and are in none of the figures:\n- num=300,seed=0: fit.num: got" in table
    status = [row["status"][:12] for row in csv.DictReader((tmp_path / "s" / "sweep.csv").read_text().splitlines())]
    assert status == ["done", "done", "fit.num: got", "fit.num: got"]
    assert "2 of 4 runs have not ended well" in done.out
