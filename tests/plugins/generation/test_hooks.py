"""The hooks of the plugin, as the core calls them."""

import json
import math
import re
import shutil
import sys

import pytest
import torch
from diffusers import DDPMPipeline
from pdiff_plugins.generation.evaluation import GROUP, evaluation

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.export import export
from pdiff.runtime.errors import PdiffError
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.testing.simulated_cuda import simulated_cuda

HOOK = load_plugin("generation").hook
DETAILS = {"FID_plain", "KID", "denoising_loss", "confidence", "classes"}


def evaluate(task, candidates, split: str = "test") -> list:
    """Return what `evaluate` yields."""
    return list(HOOK.evaluate(task=task, candidates=candidates, split=split, ensembles=()))


def assert_same(ones, others) -> None:
    """Assert that evaluations are equal bit for bit."""
    for one, other in zip(ones, others, strict=True):
        assert (one.metric, one.details) == (other.metric, other.details)
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.signature, other.signature)


def test_build_says_what_the_metric_is_and_what_it_depends_on(build, tiny_generator):
    task = build(tiny_generator)
    assert (task.metric.name, task.metric.higher_is_better) == ("FID", False)
    assert set(task.splits) == {"train", "seen", "select", "test"}
    assert task.facts["feature_network"].keys() == {"name", "accuracy", "sha256"}
    assert re.fullmatch(r"own classifier, 6 features, accuracy 0\.\d{3}, sha256 [0-9a-f]{8}", task.facts["features"])
    assert task.facts["FID"] == "extrapolated to infinitely many images by the jackknife over 4 groups"
    assert task.facts["images"] == "10 on select, 20 on test"
    assert task.facts["sampler"] == "DDIMScheduler, 3 steps"
    assert HOOK.select_params(task=task, cfg=resolve(tiny_generator)) == ["conv_out.weight", "conv_out.bias"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"netwrok": {}}, r"^task: got unknown key 'netwrok'\. Did you mean 'network'"),
        ({"images": {"select": 10}}, r"^task\.images\.test: got None, expected an integer from 1 on"),
        ({"images": {"select": 10, "test": 20, "train": 5}}, r"^task\.images: got unknown key 'train'"),
        ({"eval_batch": 0}, r"^task\.eval_batch: got 0, expected an integer from 1 on"),
        ({"images": {"select": 6, "test": 20}}, r"^task\.images\.select: got 6, too few for the FID, expected at"),
        ({"groups": 1}, r"^task\.groups: got 1, expected 0, or an integer from 2 on\. Take 20\.$"),
        ({"groups": -1}, r"^task\.groups: got -1, expected 0, or an integer from 2 on"),
        ({"sampler": {"type": "Euler", "steps": 3}}, r"^task\.sampler\.type: got 'Euler'\. Known: DDIMScheduler, DDPM"),
    ],
)
def test_unsound_settings_are_refused(build, tiny_generator, change, line):
    tiny_generator["task"].update(change)
    with pytest.raises(PdiffError, match=line):
        build(tiny_generator)


@pytest.mark.parametrize("select", ["head", "last_norms(1)", "all"])
@pytest.mark.parametrize("sampler", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_evaluation_of_many_is_that_of_each_alone_bit_for_bit(build, tiny_generator, candidates, sampler, select):
    tiny_generator["task"]["sampler"]["type"] = sampler
    task = build(tiny_generator)
    group = candidates(task, 3, select)
    alone = [group.take([i]) for i in range(3)]
    together = evaluate(task, group)
    assert_same(together, [evaluate(task, one)[0] for one in alone])
    assert len({evaluation.metric for evaluation in together}) == 3


def test_first_step_and_denoising_loss_run_the_frozen_part_once(build, tiny_generator, candidates):
    task = build(tiny_generator)
    group, calls = candidates(task, 3), []
    task.model.mid_block.resnets[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    evaluate(task, group)
    batches, steps = 2, 3
    # The loss once; of each batch, the first step once and the others for each candidate.
    assert len(calls) == 1 + batches * (1 + 3 * (steps - 1))


def test_candidates_beyond_a_group_are_evaluated_like_the_first(build, tiny_generator, candidates):
    tiny_generator["task"]["sampler"]["steps"] = 1
    task = build(tiny_generator)
    group = candidates(task, 2)
    many = group.take([0] * GROUP + [1, 0])
    found = evaluate(task, many, "select")
    assert len(found) == GROUP + 2
    assert_same([found[0], found[GROUP]], evaluate(task, group, "select"))
    assert_same([found[0]], [found[-1]])


def test_evaluation_changes_the_selection_only_and_needs_no_eval_mode(build, tiny_generator, candidates):
    task = build(tiny_generator)
    group = candidates(task)
    first, before = evaluate(task, group), {n: t.clone() for n, t in task.model.state_dict().items()}
    task.model.train()
    assert_same(evaluate(task, group), first)
    changed = {n for n, t in task.model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed <= set(group.layout.names)


def test_evaluation_holds_what_was_promised(build, tiny_generator, candidates):
    for found in evaluate(build(tiny_generator), candidates(build(tiny_generator))):
        assert found.signature.shape == (5, 6)
        assert found.scores.shape == (4,)
        assert found.scores.mean().item() == found.metric < found.details["FID_plain"]
        assert set(found.details) == DETAILS
        assert 0.1 <= found.details["confidence"] <= 1
        assert 1 <= found.details["classes"] <= 10


def test_without_groups_the_fid_is_as_it_is_and_has_no_scores(build, tiny_generator, candidates):
    by_groups = evaluate(build(tiny_generator), candidates(build(tiny_generator)))
    tiny_generator["task"]["groups"] = 0
    task = build(tiny_generator)
    assert task.metric.chance is None
    assert "FID" not in task.facts
    for plain, other in zip(evaluate(task, candidates(task)), by_groups, strict=True):
        assert plain.metric == other.details["FID_plain"]
        assert plain.scores is None
        assert "FID_plain" not in plain.details


def test_chance_is_what_a_candidate_reaches_that_makes_noise(build, tiny_generator):
    task = build(tiny_generator)
    bench = task.splits["test"]
    noise = [bench.features(batch.clamp(-1, 1)) for batch in bench.noise.split(12)]
    seen = [torch.cat(parts) for parts in zip(*noise, strict=True)]
    assert task.metric.chance == evaluation(seen, 0.0, bench, bench.whole).metric


def test_denoising_loss_is_that_of_the_network_with_the_candidate_in_it(build, tiny_generator, candidates):
    task = build(tiny_generator)
    group, held = candidates(task), task.splits["test"].whole.held_out()
    for index, found in enumerate(evaluate(task, group)):
        group.load(task.model, index)
        with torch.no_grad():
            error = task.model(held.noisy, held.t).sample - held.target
        assert found.details["denoising_loss"] == pytest.approx(error.square().mean().item())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_candidate_whose_images_are_not_finite_is_the_worst_and_spoils_no_other(
    build, tiny_generator, candidates, value
):
    task = build(tiny_generator)
    group = candidates(task)
    first = evaluate(task, group)
    group.vectors[1] = value
    found = evaluate(task, group)
    assert found[1].metric == math.inf
    assert found[1].scores.tolist() == [math.inf] * 4
    assert found[1].details == {}
    assert found[1].signature.shape == (5, 6)
    assert_same([found[0], found[2]], [first[0], first[2]])
    table = task.similarity(*[torch.stack([evaluation.signature for evaluation in found])] * 2)
    assert table[1].tolist() == [0, 0, 0]


def collected(config: dict, build, state=None, base=None):
    """Return snapshots, and the network before the first of them."""
    cfg, task = resolve(config), build(config)
    if base is not None:
        task.model.load_state_dict(base)
    names, snapshots = HOOK.select_params(task=task, cfg=cfg), []
    for snapshot in HOOK.collect(task=task, names=names, cfg=cfg, state=state, folder=None, branch=None):
        if snapshot.params and base is None:
            base = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
        snapshots.append(snapshot)
    return snapshots, base


def equal(one, other) -> bool:
    """Say whether two sets of named tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_collection_that_goes_on_from_any_snapshot_yields_the_same_as_without_interruption(build, tiny_generator):
    tiny_generator["collect"]["train"]["epochs"] = 2
    tiny_generator["collect"]["branches"] = 2
    through, base = collected(tiny_generator, build)
    assert [bool(snapshot.params) for snapshot in through] == [False] * 2 + [True] * 8
    for k, snapshot in enumerate(through):
        resumed, _ = collected(tiny_generator, build, snapshot.state, base if snapshot.params else None)
        assert [s.provenance for s in resumed] == [s.provenance for s in through[k + 1 :]]
        assert all(equal(a.params, b.params) for a, b in zip(resumed, through[k + 1 :], strict=True))


def test_fine_tuning_lowers_the_loss_of_a_bad_last_layer(build, tiny_generator):
    tiny_generator["collect"]["finetune"]["steps"] = 60
    snapshots, _ = collected(tiny_generator, build)
    losses = [snapshot.provenance["loss"] for snapshot in snapshots if snapshot.params]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_run_names_the_feature_network_and_lists_the_pictures(finished_generator):
    report = finished_generator.folder("compare")
    summary = json.loads((report / "summary.json").read_text())
    assert summary["metric"].items() >= {"name": "FID", "higher_is_better": False}.items()
    assert summary["metric"]["chance"] > 0
    assert set(summary["task"]["feature_network"]) == {"name", "accuracy", "sha256"}
    assert "features: own classifier, 6 features, accuracy 0." in (report / "table.md").read_text()
    assert [picture["file"] for picture in summary["pictures"]] == [
        "images_real.png", "images_trained.png", "images_generated.png", "one_noise.png"
    ]  # fmt: skip
    for picture in summary["pictures"]:
        assert (report / picture["file"]).read_bytes().startswith(b"\x89PNG")
        assert picture["title"]
        assert picture["caption"].endswith(".")
    assert summary["sources"]["generated"]["n"] == 3
    assert set(summary["sources"]["trained"]["details"]) == DETAILS


def test_classifier_is_checked_with_the_run(finished_generator, tiny_generator, tmp_path):
    shutil.copytree(finished_generator.path, tmp_path / "copy")
    (tmp_path / "copy" / "population" / "task" / "classifier.safetensors").unlink()
    with pytest.raises(PdiffError, match=r"classifier\.safetensors: is missing\. Repeat its stage"):
        run_pipeline(resolve(tiny_generator), RunDirectory(tmp_path / "copy"), resume=True, gates=False)


def test_export_writes_a_folder_that_diffusers_loads(finished_generator, tmp_path):
    index = export(finished_generator.path, "generated", "best", tmp_path / "pipeline")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "pipeline")
    from pdiff.runtime.storage import read_tensors

    vectors = read_tensors(finished_generator.folder("generate") / "vectors.safetensors")["vectors"]
    weights = torch.cat([pipeline.unet.conv_out.weight.flatten(), pipeline.unet.conv_out.bias])
    assert torch.equal(weights, vectors[index])
    frozen = read_tensors(finished_generator.base)["conv_in.weight"]
    assert torch.equal(pipeline.unet.conv_in.weight, frozen)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("model.safetensors", r"^--output: got '.*model\.safetensors', expected the name of a folder"),
        ("", r"^--output: got '.*', which exists\. Give the name of a new folder\.$"),
    ],
)
def test_export_to_what_is_no_new_folder_is_refused(build, tiny_generator, tmp_path, name, line):
    task = build(tiny_generator)
    with pytest.raises(PdiffError, match=line):
        task.export(task.model, tmp_path / name)


class Absent:
    """Hides a package, as if it were not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path=None, target=None):
        """Refuse the package, and leave the others to those who know them."""
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("package", ["diffusers", "torchmetrics"])
def test_package_that_is_not_installed_is_named(monkeypatch, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    line = rf"^plugin generation: needs the package {package}\. Run: pip install 'pdiff\[generation\]'\.$"
    with pytest.raises(PdiffError, match=line):
        load_plugin("generation")


def test_candidates_are_measured_against_training_images_too(build, tiny_generator, candidates):
    task = build(tiny_generator)
    few = candidates(task, 2)
    on = {split: evaluate(task, few, split) for split in ("train", "select")}
    assert len(on["train"]) == 2
    assert on["train"][0].metric != on["select"][0].metric


def test_inputs_are_noisy_images_and_time_steps_that_come_again(tiny_generator, build):
    task = build(tiny_generator)
    batches = list(HOOK.inputs(task=task, split="train"))
    assert [len(images) for images, _ in batches] == [12] * 5 + [4]
    assert task.model(*batches[-1]).sample.shape == batches[-1][0].shape
    for one, again in zip(batches, HOOK.inputs(task=task, split="train"), strict=True):
        assert torch.equal(one[0], again[0])
        assert torch.equal(one[1], again[1])


def test_what_is_seen_of_all_images_comes_from_a_gpu_at_once(tiny_generator, build, candidates):
    task = build(tiny_generator)
    expected = evaluate(task, candidates(task))
    tiny_generator["device"] = "cuda"
    with simulated_cuda() as gpu:
        task, counts = build(tiny_generator), []
        on_gpu = candidates(task)
        on_gpu.vectors = on_gpu.vectors.to("cuda")
        assert_same(evaluate(task, on_gpu), expected)
        for size in (12, 4):
            task.splits["test"].split.eval_batch = size
            gpu.reset()
            evaluate(task, on_gpu)
            counts.append((gpu.copies_to_host, gpu.syncs))
    assert counts[0] == counts[1]
    assert counts[0][0] == 1
