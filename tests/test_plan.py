"""What arithmetic says a run needs, and that what does not fit is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pdiff.engine.autoencoder import PrincipalAutoencoder
from pdiff.engine.decoder import CopiedDecoder
from pdiff.engine.registries import AUTOENCODERS
from pdiff.plan import (
    OF_POPULATION,
    StagePlan,
    check_plan,
    in_words,
    make_plan,
    plan_lines,
    weigh_codec_training,
    weigh_refining,
)
from pdiff.run.config import PACKAGE, resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import read_yaml
from pdiff.runtime.storage import read_json, read_tensors

CPU = torch.device("cpu")


def plan_of(tiny, tmp_path, **engine):
    return make_plan(resolve({**tiny, "engine": {**tiny["engine"], **engine}}), tmp_path / "run")


def test_a_finished_run_used_at_least_what_is_planned_and_left_as_much_on_disk(finished):
    plan = make_plan(resolve(finished.config()), finished.path)
    assert (plan.parameters, plan.checkpoints, plan.latent, plan.generated) == (384, 10, 32, 5)
    assert plan.candidates == 10 + 5 + 8 * 4 + 1 + 1
    assert len(plan.notes) == 1
    records = read_json(finished.path / "stages.json")
    for stage in plan.stages[:3]:
        left = sum((finished.path / name).stat().st_size for name in records[stage.name]["files"])
        assert stage.disk <= left
        assert stage.host <= 2 * records[stage.name]["peak_memory_bytes"]
        assert stage.gpu == 0


def test_each_fit_has_an_engine_on_disk(tiny, tmp_path):
    once, thrice = (
        {stage.name: stage for stage in make_plan(resolve({**tiny, "fit": {"repeats": n}}), tmp_path / "run").stages}
        for n in (1, 3)
    )
    assert thrice["fit"].disk == 3 * once["fit"].disk
    assert thrice["generate"].disk == once["generate"].disk


def test_planning_leaves_nothing_behind(tiny, tmp_path):
    plan = plan_of(tiny, tmp_path)
    assert plan.checkpoints == 300
    assert "N is taken as 300" in plan.notes[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", ["fast", "paper", "tokens"])
def test_parts_of_every_preset_are_weighed_without_memory(tiny, tmp_path, preset):
    config = resolve({**tiny, "engine": {"preset": preset}})
    fit = {stage.name: stage for stage in make_plan(config, tmp_path / "run").stages}["fit"]
    assert fit.disk > 4 * 384
    assert fit.host > fit.disk


def test_what_a_generator_trains_is_weighed(tiny, tmp_path):
    narrow = {"vae": {"width": 8}, "gan": {"width": 8}}
    kinds = ("gaussian", "vae", "gan")
    engines = [{**tiny["engine"], "generator": {"type": kind, **narrow.get(kind, {})}} for kind in kinds]
    engines += [{**tiny["engine"], "generator": {"type": "vae", "width": 2000}}]
    plans = [make_plan(resolve({**tiny, "engine": engine}), tmp_path / "run") for engine in engines]
    needs = [next(stage for stage in plan.stages if stage.name == "fit") for plan in plans]
    assert needs[-1].disk > 100_000_000 > max(need.disk for need in needs[:-1])
    assert needs[-1].host > needs[0].host + 4 * (needs[-1].disk - needs[0].disk)


@pytest.fixture
def state(finished):
    """The tensors of a network."""
    return read_tensors(finished.base)


def write(path, state, number):
    """Write a checkpoint that differs from others of another number."""
    torch.save({**state, "fc.bias": torch.full_like(state["fc.bias"], number)}, path)


def test_files_of_the_user_are_counted(tiny, tmp_path, state):
    for number in range(3):
        write(tmp_path / f"{number}.pth", state, number)
    config = resolve({**tiny, "checkpoints": {"files": str(tmp_path)}})
    assert make_plan(config, tmp_path / "run").checkpoints == 3


def conditional(tiny, folder, state, **sections):
    """Return a config of twenty files for conditions 0 to 19."""
    for number in range(20):
        write(folder / f"angle{number}.pth", state, number)
    return resolve({**tiny, "checkpoints": {"files": str(folder), "conditions": r"angle(?P<angle>\d+)"}, **sections})


def test_candidates_for_conditions_are_counted(tiny, tmp_path, state):
    split = {"type": "random", "select": 0.1, "unseen": 0.2}
    more = {"fit": {"split": split, "repeats": 2}, "generate": {"num": 5, "draws": 3}}
    plan = make_plan(conditional(tiny, tmp_path, state, **more), tmp_path / "run")
    sources = read_yaml(PACKAGE / "defaults.yaml")["evaluate"]["conditional"]
    assert (plan.checkpoints, plan.generated) == (20, 6 * 3 * 2)
    assert plan.candidates == (len(sources) - 2) * 6 + plan.generated  # without the symmetry, which is not declared
    assert {stage.name: stage.disk for stage in plan.stages}["generate"] == 4 * 384 * plan.generated


def test_what_is_made_of_another_source_is_counted_with_it(tiny, tmp_path, state):
    config = conditional(tiny, tmp_path, state, fit={"split": {"type": "random", "select": 0.1, "unseen": 0.2}})
    before = make_plan(config, tmp_path / "run")
    more = {"type": "refined", "of": "generated", "steps": 1}
    config.evaluate.conditional.more = more
    config.evaluate.conditional.best = {**more, "of": "oracle"}
    after = make_plan(config, tmp_path / "run")
    assert after.candidates - before.candidates == after.generated + 6
    assert after.stages[3].disk == 4 * 384 * (after.generated + 6)
    table = {"a": {**more, "together": 4}, "b": {**more, "space": "weights", "together": 2}, "soup": {"type": "soup"}}
    run = Run(config, RunDirectory(tmp_path / "run"))
    assert weigh_refining(run, table, {"a": 6, "b": 5, "soup": 1}) == (5 * 2 * 4 * 384, 11 * 4 * 384)


def test_a_mistake_in_conditions_is_told_before_the_run(tiny, tmp_path, state):
    config = conditional(tiny, tmp_path, state)
    config.checkpoints.conditions = r"angel(?P<angle>\d+)"
    with pytest.raises(PdiffError, match=r"^checkpoints\.conditions: .* does not match 'angle0\.pth'"):
        make_plan(config, tmp_path / "run")
    config.checkpoints.conditions, config.fit.split = r"angle(?P<angle>\d+)", {"type": "given"}
    with pytest.raises(PdiffError, match=r"^fit\.split: checkpoint 0 is said to be None \(provenance, 'split'\)"):
        make_plan(config, tmp_path / "run")


@pytest.fixture
def gpu(monkeypatch):
    """Let runs be on a GPU, of which so many bytes are free, and none of which is touched."""
    device, memory = torch.device("cuda", 0), {"free": 10**12}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda asked: (memory["free"], 10**12))
    for name in ("pdiff.run.run", "pdiff.engine.parameter_diffusion"):
        monkeypatch.setattr(f"{name}.resolve_device", lambda _: device)
    monkeypatch.setattr("pdiff.run.run.Stopwatch", lambda *_: None)
    return memory


def test_what_lies_on_a_gpu_is_planned_beside_the_host_and_not_with_it(tiny, tmp_path, monkeypatch, gpu):
    monkeypatch.setattr("pdiff.plan.VALUES", 384)
    monkeypatch.setattr("pdiff.plan.resident_memory", lambda: 10**9)

    def stages():
        return {stage.name: stage for stage in make_plan(resolve(tiny), tmp_path / "run").stages}

    population, most, vector = 4 * 384 * 300, 384 * 4, 384 * 4
    whole = stages()
    assert {stage.host // 10**9 for stage in whole.values()} == {1}
    assert all(0 < stage.gpu < 10**9 for stage in whole.values())
    gpu["free"] = 2 * population - 1
    blocks = stages()
    assert whole["fit"].gpu - blocks["fit"].gpu == population - most
    assert whole["fit"].host == blocks["fit"].host == 10**9 + 2 * most
    gpu["free"] = 8 * vector
    assert whole["evaluate"].gpu - stages()["evaluate"].gpu == vector * plan_of(tiny, tmp_path).candidates - 2 * vector


def test_a_codec_that_is_trained_on_coordinates_is_planned_with_those_of_all_vectors(tiny, tmp_path):
    run = Run(resolve({**tiny, "engine": {"preset": "tokens"}}), RunDirectory(tmp_path / "run"))
    engine = run.new_engine()
    engine.prepare(run.layout, torch.device("meta"))
    tokens, rank, _ = engine.autoencoder.axes.shape
    weights, row = 4 * sum(part.numel() for part in engine.autoencoder.parameters()), 4 * tokens * rank
    batch = 3 * engine.config["autoencoder_training"]["batch_size"]
    assert weigh_codec_training(engine, run.layout.size, 300) == 3 * weights + (batch + 300) * row


def test_large_vectors_that_stay_on_the_host_are_not_refused_for_a_gpu(tiny, tmp_path, monkeypatch, gpu):
    monkeypatch.setattr("pdiff.plan.VALUES", 384)
    population, vector = 4 * 384 * 300, 4 * 384

    def fit() -> int:
        return next(stage.gpu for stage in make_plan(resolve(tiny), tmp_path / "run").stages if stage.name == "fit")

    whole = fit()
    gpu["free"] = whole - population + vector
    assert OF_POPULATION * gpu["free"] < population
    assert fit() == gpu["free"]
    fitting = SimpleNamespace(stages=[StagePlan("fit", 0, fit(), 0)])
    check_plan(fitting, tmp_path / "run", torch.device("cuda", 0))
    gpu["free"] -= 1
    with pytest.raises(PdiffError, match=r"^plan: gpu memory of fit: "):
        check_plan(fitting, tmp_path / "run", torch.device("cuda", 0))


def test_a_gpu_that_is_too_small_is_told_though_the_host_is_large(tmp_path, gpu):
    gpu["free"] = 16 * 10**9
    plan = SimpleNamespace(stages=[StagePlan("generate", 0, 1, 0), StagePlan("fit", 0, 30 * 10**9, 0)])
    with pytest.raises(PdiffError, match=r"^plan: gpu memory of fit: got at least 30 GB, expected at most 16 GB, "):
        check_plan(plan, tmp_path / "run", torch.device("cuda", 0))


def test_lines_hold_the_counts_and_a_row_for_each_stage(tiny, tmp_path):
    lines = list(plan_lines(plan_of(tiny, tmp_path)))
    assert lines[0].startswith("plan: P 384 parameters, N 300 checkpoints, L 32, M 5 generated, ")
    assert [line.split()[0] for line in lines[2:7]] == ["collect", "fit", "generate", "evaluate", "compare"]
    assert [line.split()[-1] for line in lines[2:4]] == ["population", "engine"]


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (StagePlan("fit", 10**18, 0, 0), r"^plan: host memory of fit: got at least 1,000,000 TB, .* Select fewer"),
        (StagePlan("collect", 0, 0, 10**18), r"^plan: run directory: got 1,000,000 TB, expected at most .* lower gen"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, stage, line):
    with pytest.raises(PdiffError, match=line):
        check_plan(SimpleNamespace(stages=[stage]), tmp_path / "run", CPU)


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (640, "640 B"), (2_123_456, "2.12 MB"), (999_600_000, "1 GB"), (5 * 10**15, "5,000 TB")],
)
def test_bytes_are_told_in_words(count, words):
    assert in_words(count) == words


def test_what_is_trained_through_losses_is_counted(closed, tmp_path):
    def stages(**fit):
        config = resolve({**closed, "fit": {**closed["fit"], **fit}})
        return {stage.name: stage for stage in make_plan(config, tmp_path / "run").stages}

    plain, tuned, both = stages(), stages(decoder={}), stages(decoder={}, hypernet={"width": 10, "depth": 1})
    decoder, layers = 4 * (8 * 12 + 12), 4 * ((1 + 1) * 10 + (10 + 1) * 8)
    assert tuned["fit"].disk == plain["fit"].disk + decoder
    assert both["fit"].disk == tuned["fit"].disk + decoder + layers
    assert tuned["generate"].host - plain["generate"].host >= decoder
    assert both["generate"].disk == plain["generate"].disk


def test_a_hypernetwork_that_begins_with_base_has_a_linear_decoder_whatever_the_engine_has(closed, tmp_path):
    paper = {"preset": "paper", "autoencoder": {"latent": 8}}

    def disk(**fit):
        config = resolve({**closed, "engine": paper, "fit": {**closed["fit"], **fit}})
        return next(stage.disk for stage in make_plan(config, tmp_path / "run").stages if stage.name == "fit")

    linear, layers = 4 * (8 + 1) * 12, 4 * ((1 + 1) * 10 + (10 + 1) * 8)
    assert disk(hypernet={"begin": "base", "width": 10, "depth": 1}) == disk() + linear + layers


def test_an_autoencoder_that_needs_memory_to_decode_is_planned_where_no_decoder_is_trained(closed, tmp_path):
    @AUTOENCODERS.register_module(name="looks")
    class Looks(PrincipalAutoencoder):
        """A codec that looks at its latents, which those without memory do not allow."""

        def decode(self, latents):
            assert latents.isfinite().all()
            return super().decode(latents)

        def trainable_decoder(self):
            return CopiedDecoder(self)

    try:
        engine = {**closed["engine"], "autoencoder": {"type": "looks", "latent": 8}}
        assert make_plan(resolve({**closed, "engine": engine}), tmp_path / "run").latent == 8
    finally:
        AUTOENCODERS.module_dict.pop("looks")


def test_what_cannot_be_trained_through_losses_is_told(tiny, finished, tmp_path):
    lossless = {"plugin": str(Path(__file__).with_name("many_lineages.py")), "select": "all"}
    with pytest.raises(PdiffError, match="fit.decoder: needs the hook loss, which the plugin .* lacks"):
        make_plan(resolve({**lossless, "fit": {"decoder": {}}}), tmp_path / "run")
    with pytest.raises(PdiffError, match="fit.hypernet: got settings, but the checkpoints have no conditions"):
        make_plan(resolve({**tiny, "fit": {"hypernet": {}}}), finished.path)
