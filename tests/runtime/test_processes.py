"""Several processes act as one: they share, agree, end together, and compute what one process computes."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pdiff import ParameterDiffusion
from pdiff.engine import training
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.run import Run
from pdiff.runtime import processes as group
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.launchers import LAUNCHERS
from pdiff.runtime.processes import share
from pdiff.runtime.storage import read_json
from pdiff.stages.collect import collect
from pdiff.stages.evaluate import evaluations
from pdiff.stages.pipeline import run_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture
def branches(tiny, tmp_path):
    """A config whose collection has three branches, and the arguments that run it."""
    tiny["collect"]["branches"], tiny["collect"]["finetune"]["steps"] = 3, 4
    kept = ("trained", "generated", "soup")
    tiny["evaluate"]["sources"] = {name: None for name in resolve(tiny).evaluate.sources if name not in kept}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    return "--config", tmp_path / "tiny.yaml", "--no-gates"


@pytest.mark.parametrize(("count", "parts"), [(0, 2), (1, 2), (7, 2), (7, 3), (6, 3), (2, 5)])
def test_shares_follow_each_other_and_differ_by_one_at_most(count, parts):
    shares = [range(count)[share(count, number, parts)] for number in range(parts)]
    assert [thing for own in shares for thing in own] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(shares[0]) == max(map(len, shares))


def test_single_process_has_everything_to_do_and_nobody_to_wait_for():
    assert (group.rank(), group.size(), group.is_main(), group.own(5)) == (0, 1, True, slice(0, 5))
    value = object()
    assert group.gather(value)[0] is value
    assert group.on_main(lambda: value) is value
    with group.training_group(torch.device("cpu")):
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("environment", "launcher", "words"),
    [
        (
            {"RANK": "first", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}, "pytorch",
            "--launcher: got RANK 'first', expected a number, as torchrun sets it",
        ),
        ({}, "pytorch", "--launcher: got 'pytorch', but RANK is not set, expected as torchrun sets it"),
        ({}, "slurm", "--launcher: got 'slurm', but SLURM_PROCID is not set, expected as srun sets it"),
        ({}, "mpi", "--launcher: got 'mpi', but OMPI_COMM_WORLD_RANK is not set, expected as mpirun sets it"),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}, "slurm",
            "--launcher: got 'slurm', but MASTER_ADDR is not set, expected the name of the first process's machine",
        ),
        (
            {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}, "none",
            "--launcher: got none, but torchrun has started several processes. Give pytorch.",
        ),
    ],
)  # fmt: skip
def test_launcher_that_does_not_fit_is_refused(monkeypatch, environment, launcher, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PdiffError, match=words):
        group.join(launcher)


@pytest.mark.parametrize("wrong", [{"MASTER_ADDR": "no.such.machine.invalid"}, {"MASTER_PORT": "x"}, {}])
def test_place_where_no_first_process_can_be_is_refused(monkeypatch, wrong):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1]), **wrong}
        for name, value in {**place, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
        words = f"got MASTER_ADDR '{place['MASTER_ADDR']}' and MASTER_PORT '{place['MASTER_PORT']}', expected the first"
        with pytest.raises(PdiffError, match=words) as caught:
            group.join("pytorch")
        assert "\n" not in str(caught.value)


def test_processes_agree_and_plugins_see_one_alone(processes):
    def work(number):
        group.join("pytorch")
        assert (group.rank(), group.size(), group.is_main()) == (number, 3, number == 0)
        assert group.gather({"of": number, "x": torch.arange(number)})[2]["x"].tolist() == [0, 1]
        assert group.on_main(lambda: f"said by {number}") == "said by 0"
        assert not torch.distributed.is_initialized()
        module = torch.nn.Linear(2, 2)
        group.copy_from_main(module)
        assert len({str(weights) for weights in group.gather(module.weight.tolist())}) == 1
        for _ in range(2):
            with group.training_group(torch.device("cpu")):
                assert torch.distributed.get_world_size() == 3
        assert not torch.distributed.is_initialized()
        group.gather(None)

    started = processes(work, 3)
    assert started.codes() == [0, 0, 0], started.text("err")


def test_threads_that_would_abort_the_process_end_before_python_shuts_down():
    script = """
import atexit, time
from pathlib import Path
from pdiff.runtime import processes as group

def names():
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]

atexit.register(lambda: print(names()))
group.join("pytorch")
end = time.monotonic() + 30
while not any("gloo" in name for name in names()) and time.monotonic() < end:  # a thread gives itself its name
    time.sleep(0.01)
print(names())
"""
    with socket.socket() as free:
        free.bind(("", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    alone = {**place, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    command = [sys.executable, "-c", script]
    joined, ended = subprocess.check_output(command, env=os.environ | alone, text=True).splitlines()
    assert "gloo" in joined
    assert "gloo" not in ended


def test_process_whose_training_was_cut_short_does_not_wait_for_the_others_at_its_end():
    script = """
import atexit, torch
from pdiff.runtime import processes as group

group.SILENT = ("gloo",)
atexit.register(lambda: print("later"))
group.join("pytorch")
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
print("the reason")
raise SystemExit(1)
"""
    with socket.socket() as free:
        free.bind(("", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    alone = {**place, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | alone, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "the reason\n")


def test_devices_of_different_types_are_refused(processes):
    def work(number):
        group.join("pytorch")
        words = r"device: got cpu in process 0 on \S+, meta in process 1 on \S+, expected one type. Mend the GPU"
        with pytest.raises(PdiffError, match=words):
            group.agree_on(torch.device("meta" if number == 1 else "cpu"))
        group.agree_on(torch.device("cpu"))

    started = processes(work, 3)
    assert started.codes() == [0, 0, 0], started.text("err")


def test_gpu_that_two_processes_share_is_refused():
    group.check_places([("cuda", "first", "a"), ("cuda", "first", "b"), ("cuda", "second", "a")])
    group.check_places([("cpu", "first", None), ("cpu", "first", None)])
    with pytest.raises(PdiffError, match="got one GPU for the processes 0 and 2 on first, expected one for each"):
        group.check_places([("cuda", "first", "a"), ("cuda", "first", "b"), ("cuda", "first", "a")])


@pytest.mark.parametrize("launcher", ["slurm", "mpi"])
def test_other_launchers_say_who_is_who(processes, launcher):
    def work(number):
        names, _ = LAUNCHERS[launcher]
        os.environ |= dict(zip(names, (os.environ.pop("RANK"), os.environ.pop("WORLD_SIZE"), "0"), strict=True))
        group.join(launcher)
        assert group.gather(number) == [0, 1]

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")


@pytest.mark.parametrize("lost", [0, 1])
def test_lost_process_is_noticed_at_once_by_those_that_wait(processes, monkeypatch, lost):
    monkeypatch.setattr(group, "SECONDS_TO_END", 0.5)  # that the first one gives to one that is lost

    def work(number):
        group.join("pytorch")
        group.gather(None)
        if number == lost:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            group.gather(None)
        except PdiffError as error:
            group.say_once(f"error: {error}")
            raise SystemExit(2) from None

    started = processes(work)
    assert sorted(started.codes()) == [-signal.SIGKILL, 2]
    assert started.errors() == [f"error: {group.LOST}"]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_lost_process_is_noticed_where_the_backend_lets_the_others_wait(processes, monkeypatch, lost):
    monkeypatch.setattr(group, "SILENT", ("gloo",))
    monkeypatch.setattr(group, "SECONDS_TO_END", 0.5)

    def work(number):
        group.join("pytorch")
        with group.training_group(torch.device("cpu")):
            if number == lost:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # as NCCL waits for a word of the lost one

    started = processes(work, 3)
    assert sorted(started.codes(30)) == [-signal.SIGKILL, 2, 2]
    assert {*started.errors()} == {f"error: {group.LOST}"}
    assert len(started.errors()) == 1 or lost == 0  # who keeps count of those that have said it


def test_watched_trainings_end_as_others_do(processes, monkeypatch):
    monkeypatch.setattr(group, "SILENT", ("gloo",))

    def work(number):
        group.join("pytorch")
        for _ in range(3):
            with group.training_group(torch.device("cpu")):
                torch.distributed.barrier()
                time.sleep(0.05 * number)
        assert group.gather(number) == [0, 1, 2]

    started = processes(work, 3)
    assert started.codes() == [0, 0, 0], started.text("err")
    assert not started.errors()


def test_mistake_in_a_watched_training_is_told_as_such(processes, monkeypatch):
    monkeypatch.setattr(group, "SILENT", ("gloo",))

    def work(number):
        group.join("pytorch")
        try:
            with group.training_group(torch.device("cpu")):
                if number == 1:
                    time.sleep(0.2)
                    raise PdiffError("the reason")
                time.sleep(60)
        except PdiffError as error:
            group.say_once(f"error: {error}")
            raise SystemExit(2) from None

    started = processes(work, 3)
    assert started.codes(30) == [2, 2, 2], started.text("err")
    assert started.errors() == ["error: the reason"]


def test_failure_of_a_backend_keeps_its_reason():
    words = r"run: a process is lost, or cannot talk to the others \(NCCL error: no system\)\. The same command"
    with pytest.raises(PdiffError, match=words), group.lost_processes():
        raise torch.distributed.DistBackendError("NCCL error: no system\nLast error: none")


def test_process_that_is_told_to_end_says_why_once(processes):
    def work(number):
        group.join("pytorch")
        group.gather(None)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    started = processes(work)
    assert started.codes() == [2, 2]
    assert started.errors() == [f"error: {group.LOST}"]


def test_child_that_is_told_to_end_says_nothing(processes):
    def work(number):
        group.join("pytorch")
        begun = get_context("fork").Event()
        child = get_context("fork").Process(target=lambda: begun.set() or time.sleep(60))
        child.start()
        begun.wait()
        child.terminate()
        child.join()
        assert group.gather(child.exitcode) == [2, 2]
        group.say_once("error: the reason")

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")
    assert started.errors() == ["error: the reason"]


def test_two_processes_collect_what_one_collects(branches, together, tmp_path, results):
    options = (*branches, "--stage", "collect", "--work-dir")
    config = resolve(yaml.safe_load(branches[1].read_text()))
    run_pipeline(config, RunDirectory(tmp_path / "one"), ["collect"], gates=False)
    started = together(*options, tmp_path / "two")
    assert started.codes() == [0, 0], started.text("err")
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert not (tmp_path / "two" / "population" / "branches").exists()


def test_two_processes_evaluate_what_one_evaluates(finished, together, tmp_path, tiny, results):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    for name in ("one", "two"):
        shutil.copytree(finished.path, tmp_path / name)
        RunDirectory(tmp_path / name).drop(ORDER[3:])
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "one"), resume=True, gates=False)
    options = ("--config", tmp_path / "tiny.yaml", "--resume", "--no-gates")
    started = together(*options, "--work-dir", tmp_path / "two")
    assert started.codes() == [0, 0], started.text("err")
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert started.text("out").count("report: ") == 1
    assert read_json(tmp_path / "two" / "environment.json")["processes"] == 2


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ("0.5, [True] if value == 1 else torch.zeros(4)", "evaluate gave for candidate 1 of trained a signature"),
        ("None if value == 4 else 0.5, torch.zeros(4)", "evaluate gave for candidate 4 of trained a metric that"),
        ("0.5, torch.zeros(4 if value < 3 else 5)", "evaluate yielded signature of 2 shapes, expected one"),
    ],
    ids=["first", "second", "both"],
)
def test_evaluation_of_any_share_is_checked_as_that_of_one_process(halves, processes, tmp_path, evaluation, words):
    config = halves(evaluation=evaluation)

    def work(number):
        group.join("pytorch")
        run = Run(config, RunDirectory(tmp_path / "run"))
        collect(run)
        evaluations(run, {"trained": run.candidates(run.population.tensor())}, "test")

    started = processes(work)
    assert started.codes() == [1, 1]
    assert f"plugin halves: {words}" in started.text("err")


def fitted(denoiser: dict, autoencoder: dict, folder: Path | None = None, conditions: int = 0) -> ParameterDiffusion:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 3, generator=generator) @ torch.randn(3, 96, generator=generator)
    training = {"steps": 30, "batch_size": 7, "lr": 1e-3, "weight_decay": 0.0, "schedule": "cosine", "ema": 0.9}
    settings = {"denoiser": denoiser, "generator_training": training, **autoencoder}
    given = torch.randn(40, conditions, generator=generator) if conditions else None
    return ParameterDiffusion(settings).fit(vectors, folder=folder, conditions=given)


CONV = {
    "autoencoder": {"type": "conv", "latent": 4, "encoder": [4, 4], "decoder": [4, 4]},
    "autoencoder_training": {"steps": 4, "batch_size": 8, "lr": 1e-3},
}


@pytest.mark.parametrize(
    ("denoiser", "autoencoder", "conditions", "tolerance"),
    [
        ({"type": "mlp", "width": 16, "depth": 1}, {}, 0, 1e-4),
        ({"type": "mlp", "width": 16, "depth": 1}, {}, 3, 1e-4),
        ({"type": "mlp", "width": 16, "depth": 1}, {"generator": {"type": "flow"}}, 3, 1e-4),
        ({"type": "conv", "channels": [4, 4, 4]}, CONV, 0, 0),
    ],
    ids=[
        "data-parallel",
        "data-parallel with conditions",
        "a flow, data-parallel with conditions",
        "batch statistics: by the first process alone",
    ],
)
def test_two_processes_fit_what_one_fits(processes, tmp_path, denoiser, autoencoder, conditions, tolerance):
    one = fitted(denoiser, autoencoder, None, conditions)

    def work(number):
        group.join("pytorch")
        fitted(denoiser, autoencoder, None, conditions).save(tmp_path / str(number))

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")
    engines = [ParameterDiffusion.load(tmp_path / str(number)) for number in (0, 1)]
    for engine in engines:
        np.testing.assert_allclose(engine.history["denoiser"], one.history["denoiser"], rtol=tolerance)
        for name, part in one.modules().items():
            ours = engine.modules()[name].state_dict()
            for key, tensor in part.state_dict().items():
                torch.testing.assert_close(ours[key], tensor, rtol=tolerance, atol=tolerance)
    assert torch.equal(engines[0].sample(5), engines[1].sample(5))


@pytest.mark.parametrize(
    ("denoiser", "tolerance"),
    [({"type": "mlp", "width": 16, "depth": 1}, 1e-4), ({"type": "conv", "channels": [4, 4, 4]}, 0)],
    ids=["data-parallel", "batch statistics: by the first process alone"],
)
def test_two_processes_end_a_watched_training_at_the_same_step(processes, tmp_path, denoiser, tolerance):
    settings = {"generator_training": {"steps": 400, "lr": 1e-2, "batch_size": 7, "ema": 0.0, "patience": 1}}
    one = fitted(denoiser, settings)

    def work(number):
        group.join("pytorch")
        fitted(denoiser, settings).save(tmp_path / str(number))

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")
    for number in (0, 1):
        history = ParameterDiffusion.load(tmp_path / str(number)).history
        assert len(history["denoiser"]) == len(one.history["denoiser"]) < 400
        np.testing.assert_allclose(history["watched"], one.history["watched"], rtol=tolerance)


def test_mistake_of_the_first_process_in_the_fit_is_one_line(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)

    def work(number):
        group.join("pytorch")
        try:
            (tmp_path / "denoiser.state.safetensors.part").mkdir(exist_ok=True)
            fitted({"type": "mlp", "width": 16, "depth": 1}, {}, tmp_path)
        except PdiffError as error:
            begun = time.monotonic()
            group.say_once(f"error: {error}")
            assert time.monotonic() - begun < group.SECONDS_TO_END - 1
            raise SystemExit(2) from None

    started = processes(work)
    assert started.codes() == [2, 2], started.text("err")
    (line,) = started.errors()
    assert "denoiser.state.safetensors: cannot be written (Is a directory)" in line


def test_batch_with_fewer_rows_than_processes_is_refused(processes):
    def work(number):
        group.join("pytorch")
        with pytest.raises(PdiffError, match="batch_size: got 1, expected at least 2, one row for each process"):
            ParameterDiffusion({"generator_training": {"steps": 1, "batch_size": 1}}).fit(torch.randn(5, 9))

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")


def test_mistake_is_one_line_from_all_processes(together, tmp_path):
    started = together("--plugin", "classification", "--work-dir", tmp_path / "run", "--cfg-options", "genrate.num=3")
    assert started.codes() == [2, 2]
    (line,) = started.errors()
    assert line.startswith("error: config: got unknown key 'genrate'")


def test_mistake_of_the_first_process_alone_ends_the_others_without_a_word(finished, together, tmp_path, tiny):
    shutil.copytree(finished.path, tmp_path / "run")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    started = together("--config", tmp_path / "tiny.yaml", "--work-dir", tmp_path / "run")
    assert started.codes() == [2, 2]
    (line,) = started.errors()
    assert line.startswith(f"error: {tmp_path / 'run'}: collect was run before.")


@pytest.mark.parametrize("before", [False, True])
def test_directory_that_another_machine_does_not_see_is_refused(processes, tmp_path, tiny, before):
    if before:  # each machine has one of that name for itself
        RunDirectory(tmp_path / "1").path.mkdir()
        RunDirectory(tmp_path / "1").begin(resolve(tiny).to_dict(), ORDER, resume=False, overwrite=False)

    def work(number):
        group.join("pytorch")
        with pytest.raises(PdiffError, match="is not on all machines of the run. Give a --work-dir that they share"):
            run_pipeline(resolve(tiny), RunDirectory(tmp_path / str(number)))

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")


@pytest.fixture
def halves(tmp_path):
    """Return a function that writes a plugin whose collection has two branches, and returns its config."""

    def write(
        branches: str = "[0, 0]",
        state: str = '{"step": torch.tensor(step)}',
        last: str = "pass",
        evaluation: str = "0.5, torch.zeros(4)",
    ):
        text = HALVES.replace("BRANCHES", branches).replace("STATE", state).replace("LAST", last)
        text = text.replace("EVALUATION", evaluation)
        (tmp_path / "halves.py").write_text(text)
        return resolve({"plugin": str(tmp_path / "halves.py")})

    return write


HALVES = """
import os
import torch
from pdiff import *

@hookimpl
def build(cfg):
    torch.manual_seed(0)
    return Task(torch.nn.Linear(2, 2), {"select": 0, "test": 0}, Metric("accuracy"))

@hookimpl
def select_params(task):
    return ["weight"]

@hookimpl
def branches(cfg):
    return BRANCHES

@hookimpl
def collect(task, branch, state, folder):
    for step in range(int(state["step"]) + 1 if state and branch == 0 else 0, 3):
        yield Snapshot({"weight": torch.full((2, 2), 3.0 * branch + step)}, {}, STATE)
    LAST

@hookimpl
def evaluate(task, candidates, split):
    for candidate in candidates:
        value = int(candidate["weight"][0, 0])
        yield Evaluation(EVALUATION)
"""
SHORTEN = 'os.truncate(folder.parent / "branches/1/provenance.jsonl", 0)'
SHORTEN_WHOLE = f"""if branch == 0:
        import time
        rows = folder.parent / "branches/1/provenance.jsonl"
        while not rows.exists() or rows.read_text().count("\\n") < 3:
            time.sleep(0.01)
        {SHORTEN}"""


def test_part_that_something_else_writes_too_is_refused(halves, tmp_path):
    run_pipeline(halves(), RunDirectory(tmp_path / "whole"), ["collect"], gates=False)
    with pytest.raises(PdiffError, match=r"branches/1: got 0 vectors, expected the \d that were written; another"):
        run_pipeline(halves(last=f"branch == 1 and {SHORTEN}"), RunDirectory(tmp_path / "short"), ["collect"])


def test_parts_of_a_run_that_was_killed_before_it_removed_them_are_removed(halves, tmp_path):
    directory, config = RunDirectory(tmp_path / "run"), halves()
    run_pipeline(config, directory, ["collect"], gates=False)
    passing = [directory.folder("collect") / name for name in ("branches/0/vectors.f32", "collect.state.safetensors")]
    for path in passing:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run_pipeline(config, directory, ["collect"], resume=True, gates=False)
    assert not (directory.folder("collect") / "branches").exists()
    assert not any(path.exists() for path in passing)


def test_part_that_left_no_state_for_another_is_refused(halves, tmp_path):
    with pytest.raises(PdiffError, match="plugin halves: branch 0 of the collection left no state for another"):
        run_pipeline(halves(state="None"), RunDirectory(tmp_path / "run"), ["collect"])


def test_collection_of_no_parts_is_refused(halves, tmp_path):
    with pytest.raises(PdiffError, match="plugin halves: branches returned nothing, expected a number for each"):
        run_pipeline(halves(branches="[]"), RunDirectory(tmp_path / "run"), ["collect"])


def test_part_that_is_shortened_when_it_was_done_is_refused(halves, processes, tmp_path):
    config = halves(last=SHORTEN_WHOLE)

    def work(number):
        group.join("pytorch")
        run_pipeline(config, RunDirectory(tmp_path / "run"), ["collect"])

    started = processes(work)
    assert started.codes() == [1, 1]
    assert "branches/1: got 0 vectors, expected the 3 that were written" in started.text("err")


def test_plugin_in_parts_must_take_part_and_state(tmp_path, empty_plugin):
    hooks = ("collect(task): pass", "branches(cfg): return [0, 0]")
    (tmp_path / "halves.py").write_text(empty_plugin + "".join(f"\n@pdiff.hookimpl\ndef {hook}\n" for hook in hooks))
    config = resolve({"plugin": str(tmp_path / "halves.py")})
    with pytest.raises(PdiffError, match="has the hook branches, so its collect must take branch and state"):
        run_pipeline(config, RunDirectory(tmp_path / "run"))


# When to kill which process: in the base training, among the snapshots of a part, in the fit, in the evaluation.
MOMENTS = {
    "training": (0, "population/branches/0/collect.state.safetensors"),
    "collecting": (1, "population/branches/2/collect.state.safetensors"),
    "fitting": (1, "engine/denoiser.state.safetensors"),
    "evaluating": (0, "evaluation/generated.jsonl"),
}


def test_run_that_loses_one_process_after_another_ends_with_the_same_bytes(
    branches, together, tmp_path, results, monkeypatch
):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
    whole = together(*branches, "--work-dir", tmp_path / "whole")
    assert whole.codes() == [0, 0], whole.text("err")
    command = (*branches, "--work-dir", tmp_path / "run", "--resume")
    for name, (lost, file) in MOMENTS.items():
        started = together(*command)
        while not (tmp_path / "run" / file).exists() and started.all[lost].is_alive():
            time.sleep(0.002)
        started.all[lost].kill()
        codes = started.codes()
        assert (name, codes[lost], codes[1 - lost]) == (name, -signal.SIGKILL, 2), started.text("err")
        assert started.errors() == [f"error: {group.LOST}"]
    last = together(*command)
    assert last.codes() == [0, 0], last.text("err")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_collection_goes_on_in_one_process_where_two_have_begun_it(branches, together, tmp_path, results):
    config = resolve(yaml.safe_load(branches[1].read_text()))
    run_pipeline(config, RunDirectory(tmp_path / "whole"), ["collect"], gates=False)
    started = together(*branches, "--stage", "collect", "--work-dir", tmp_path / "run")
    while not (tmp_path / "run" / MOMENTS["collecting"][1]).exists() and started.all[1].is_alive():
        time.sleep(0.002)
    started.all[0].kill()
    started.codes()
    run_pipeline(config, RunDirectory(tmp_path / "run"), ["collect"], resume=True, gates=False)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_run_waits_for_the_processes_that_a_lost_one_left(branches, together, tmp_path):
    config = resolve(yaml.safe_load(branches[1].read_text()))
    started = together(*branches, "--stage", "collect", "--work-dir", tmp_path / "run")
    while not (tmp_path / "run" / MOMENTS["collecting"][1]).exists() and started.all[1].is_alive():
        time.sleep(0.002)
    os.kill(started.all[1].pid, signal.SIGSTOP)
    started.all[0].kill()
    started.all[0].join()
    with pytest.raises(PdiffError, match="another run is using it. Wait for it, or give another --work-dir"):
        run_pipeline(config, RunDirectory(tmp_path / "run"), ["collect"], resume=True, gates=False)
    os.kill(started.all[1].pid, signal.SIGCONT)
    assert started.codes() == [-signal.SIGKILL, 2]
    run_pipeline(config, RunDirectory(tmp_path / "run"), ["collect"], resume=True, gates=False)


def test_disk_that_is_full_for_one_process_is_one_line_and_the_run_goes_on(branches, together, at, tmp_path, results):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit(number: int) -> None:
        if number == 1:
            branch = tmp_path / "run" / "population" / "branches" / "2"
            at("os.mkdir", branch, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard)))

    command = (*branches, "--stage", "collect", "--work-dir", tmp_path / "run", "--resume")
    started = together(*command, first=limit)
    assert started.codes() == [2, 2]
    (line,) = started.errors()
    assert "cannot be written (File too large). Make room" in line
    again = together(*command)
    assert again.codes() == [0, 0], again.text("err")
    whole = together(*branches, "--stage", "collect", "--work-dir", tmp_path / "whole")
    assert whole.codes() == [0, 0], whole.text("err")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.slow
def test_torchrun_runs_every_stage_and_ends_where_a_process_is_lost(tiny, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "tools" / "run.py")]
    options = ["--launcher", "pytorch", "--config", str(tmp_path / "tiny.yaml"), "--no-gates", "--work-dir"]
    with subprocess.Popen([*torchrun, *options, str(tmp_path / "run")], stderr=subprocess.PIPE, text=True) as lost:
        while not (tmp_path / "run" / "population" / "provenance.jsonl").exists() and lost.poll() is None:
            time.sleep(0.01)
        children = Path(f"/proc/{lost.pid}/task/{lost.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert f"error: {group.LOST}" in lost.communicate()[1]
    assert lost.returncode == 1
    done = subprocess.run(
        [*torchrun, *options, str(tmp_path / "run"), "--resume"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1


def test_a_process_that_trains_alone_has_every_row_of_a_batch():
    own = group.own_rows(5)
    assert (own, group.trainers(), group.weight(own, 5)) == (slice(0, 5), 1, 1)
    with group.hidden_group():
        assert not torch.distributed.is_initialized()
