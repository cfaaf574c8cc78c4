"""The plugin as a whole: runs that finish, that are killed and go on, candidates side by side, exports to mmseg."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pdiff.run.config import load_config, resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.storage import read_json, read_tensors
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout

pytest.importorskip("mmseg")
pytestmark = pytest.mark.usefixtures("library")

ROOT = Path(__file__).parents[3]
CLASSES = ("background", *"0123456789")
SELECTORS = ("head", "last_norms(2)", "module(backbone.encoder.1.1.convs.0.bn)")
EVERY = [ROOT / "plugins/segmentation/default.yaml", *sorted((ROOT / "configs/segmentation").glob("*.yaml"))]
OWN = [path for path in EVERY if path.stem in ("default", "fcn_r18_camvid_head")]


def candidates_of(task, selector: str = "head", count: int = 4) -> Candidates:
    """Return a part of the network with more and more noise in it."""
    hook = load_plugin("segmentation").hook
    names = hook.select_params(task=task, cfg=resolve({"select": selector}))
    layout = Layout.of(task.model.state_dict(), names)
    base = layout.flatten(task.model.state_dict())
    noise = torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))
    return Candidates(base + torch.arange(count)[:, None] * 0.1 * noise, layout, hook.load_params)


def chosen(candidates: Candidates, rows) -> Candidates:
    """Return some of the candidates."""
    return Candidates(candidates.vectors[rows], candidates.layout, candidates.load_params)


def evaluate(task, candidates, split: str = "test") -> list:
    """Return what `evaluate` yields."""
    return list(load_plugin("segmentation").hook.evaluate(task=task, candidates=candidates, split=split))


def assert_same(ones, others) -> None:
    """Assert that evaluations are equal bit for bit."""
    for one, other in zip(ones, others, strict=True):
        assert (one.metric, one.details, one.scores) == (other.metric, other.details, other.scores)
        assert torch.equal(one.signature, other.signature)


def assert_together_as_alone(task, candidates, split: str, text: str) -> None:
    """Assert that candidates side by side are evaluated as each alone, that they differ, and that none is lost."""
    together = evaluate(task, candidates, split)
    assert_same(together, [evaluate(task, chosen(candidates, [i]), split)[0] for i in range(len(candidates))])
    assert len({tuple(result.signature.tolist()) for result in together}) > 1
    assert "left the recorded path" not in text


@pytest.fixture
def calls():
    """Return a function that lists from now on, until the test ends, every call in which a module computes."""
    handles = []

    def watch(module) -> list:
        computed = []
        handles.append(module.register_forward_hook(lambda *_: computed.append(module)))
        return computed

    yield watch
    for handle in handles:
        handle.remove()


def lines_of(path: Path) -> list[dict]:
    """Return the JSON lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_ends_with_every_source_and_the_figures_of_mmseg(segmented):
    summary = read_json(segmented.path / "report" / "summary.json")
    assert (summary["metric"]["name"], summary["metric"]["higher_is_better"]) == ("mIoU", True)
    assert 0.05 < summary["metric"]["chance"] < 1 / 5, "most pixels are background, of at most eleven classes"
    assert {name: row["n"] for name, row in summary["sources"].items()} == {
        "trained": 5, "generated": 3, "codec": 2, "soup": 1, "soup16": 2, "ensemble": 1, "interpolation": 2,
        "gaussian": 2, "gaussian32": 2, "noise05": 2, "noise15": 2, "noise_abs01": 2, "noise_abs03": 2,
    }  # fmt: skip
    for row in summary["sources"].values():
        assert {"mAcc", "aAcc", "IoU/background", "IoU/0"} <= set(row["details"])
        assert "mIoU" not in row["details"]
        assert {name for name in row["details"] if "/" in name} <= {f"IoU/{name}" for name in CLASSES}
        assert all(0 <= figures["mean"] <= 1 for figures in row["details"].values())
        assert 0 <= row["worst"] <= row["mean"] <= row["details"]["IoU/background"]["mean"] <= 1
        assert 0 <= row["similarity"] <= 1
        assert row["best_ci"] is None, "a mean over classes is no mean over images"
    assert summary["sources"]["trained"]["worst"] < summary["sources"]["trained"]["best"]
    assert summary["sources"]["noise15"]["similarity"] < 1


def test_mean_is_that_of_the_classes(segmented):
    for line in lines_of(segmented.path / "evaluation" / "trained.jsonl"):
        classes = [value for name, value in line["details"].items() if name.startswith("IoU/")]
        assert line["metric"] == pytest.approx(sum(classes) / len(classes))


def test_details_of_the_best_are_those_of_the_candidate_that_select_chose(segmented):
    row = read_json(segmented.path / "report" / "summary.json")["sources"]["trained"]
    lines = lines_of(segmented.path / "evaluation" / "trained.jsonl")
    by_split = {split: [line for line in lines if line["split"] == split] for split in ("select", "test")}
    best = max(range(5), key=lambda index: by_split["select"][index]["metric"])
    assert row["best_index"] == best
    assert row["best"] == by_split["test"][best]["metric"]
    own = {name: figures["best"] for name, figures in row["details"].items() if figures["best"] is not None}
    assert own == by_split["test"][best]["details"]


def test_provenance_tells_step_and_losses(segmented):
    lines = lines_of(segmented.path / "population" / "provenance.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all({"loss", "decode.loss_ce", "decode.acc_seg"} <= set(line) for line in lines)


def test_run_tells_the_versions_of_what_it_was_computed_with(segmented):
    packages = read_json(segmented.path / "environment.json")["packages"]
    assert {"onedl-mmengine", "onedl-mmcv", "onedl-mmsegmentation"} <= set(packages)


def test_population_holds_the_head_alone(segmented):
    names = [entry["name"] for entry in read_json(segmented.path / "population" / "layout.json")]
    assert {name.partition(".")[0] for name in names} == {"decode_head"}


# One process that has mmseg loaded is forked for every attempt, so that the import is paid for once. Each attempt dies
# when it is about to write a state: the last one when the snapshot of that state is in the population already.
DIE_AGAIN_AND_AGAIN = """
import os, signal, sys
from pathlib import Path
from pdiff.run.config import load_config
from pdiff.stages.pipeline import run_pipeline
from pdiff.run.directory import RunDirectory
from pdiff.stages import snapshots
from pdiff_plugins.openmmlab import hooks
from pdiff_plugins.openmmlab.libraries import MMSEG

MMSEG.load()
hooks.SECONDS_BETWEEN_RESTS = 0  # as if every step of the base training took half a minute
config, run = load_config(None, sys.argv[1], {}, {}), Path(sys.argv[2])
rows, write = run / "population" / "provenance.jsonl", snapshots.write_tensors

def attempt(states):
    def write_or_die(path, tensors):
        nonlocal states
        states -= path.name == "collect.state.safetensors"
        if states < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, tensors)

    snapshots.write_tensors = write_or_die
    run_pipeline(config, RunDirectory(run), ["collect"], resume=True, gates=False)
    os._exit(0)

for states in (3, 8, 1, 1000):
    child = os.fork()
    if child == 0:
        attempt(states)
    status = os.waitpid(child, 0)[1]
    print(status, len(rows.read_bytes().splitlines()) if rows.exists() else 0)
"""


def test_collection_that_is_killed_three_times_ends_with_the_same_bytes(tiny_segmentor, tmp_path, segmented, results):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_segmentor))
    command = [sys.executable, "-c", DIE_AGAIN_AND_AGAIN, str(tmp_path / "tiny.yaml"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "9 0",  # behind three steps of the base training
        "9 2",  # behind its other seven, with a state of the first snapshot and two snapshots
        "9 3",
        "0 5",
    ]
    found, expected = results(tmp_path / "run"), results(segmented.path)
    assert {"base.safetensors", "population/vectors.f32", "population/provenance.jsonl"} <= set(found)
    assert found == {name: content for name, content in expected.items() if name in found}


@pytest.mark.parametrize(("selector", "split"), [*((selector, "test") for selector in SELECTORS), ("head", "select")])
def test_candidates_together_are_evaluated_as_each_alone(segmentor, selector, split, caplog):
    assert_together_as_alone(segmentor, candidates_of(segmentor, selector), split, caplog.text)


@pytest.mark.parametrize("selector", SELECTORS)
def test_frozen_layers_before_the_selection_run_once_per_batch(segmentor, selector, calls):
    computed = calls(segmentor.model.backbone.encoder[0][0].convs[0].conv)
    evaluate(segmentor, candidates_of(segmentor, selector))
    assert len(computed) == 2


def test_whole_backbone_runs_once_per_batch_for_all_heads(segmentor, calls):
    computed = calls(segmentor.model.backbone.decoder[0].conv_block)
    heads = calls(segmentor.model.decode_head.conv_seg)
    evaluate(segmentor, candidates_of(segmentor))
    assert (len(computed), len(heads)) == (2, 2 * 4)


def test_order_of_candidates_does_not_matter(segmentor):
    candidates, order = candidates_of(segmentor), [2, 0, 3, 1]
    together = evaluate(segmentor, candidates)
    assert_same(evaluate(segmentor, chosen(candidates, order)), [together[index] for index in order])


def test_figures_are_those_of_mmseg_with_the_candidate_in_the_network(segmentor):
    from mmseg.evaluation.metrics import IoUMetric

    candidates, data = candidates_of(segmentor), segmentor.splits["test"]
    for index, evaluation in enumerate(evaluate(segmentor, candidates)):
        candidates.load(segmentor.model, index)
        metric = IoUMetric()
        metric.dataset_meta = data.split.dataset.metainfo
        wrong = []
        for batch in data.split.batches():
            with torch.no_grad():
                samples = segmentor.model.eval().test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in samples])
            wrong += [data.pixels.wrong(sample, sample.pred_sem_seg.data) for sample in samples]
        own = {"mIoU": evaluation.metric, **evaluation.details}
        figures = metric.compute_metrics(metric.results)
        assert {name: round(own[name] * 100, 2) for name in figures} == pytest.approx(figures, abs=1e-4)
        assert torch.equal(evaluation.signature, torch.cat(wrong))


def test_signatures_of_all_candidates_have_the_shape_of_the_pixels(segmentor):
    for split in ("select", "test"):
        signatures = [evaluation.signature for evaluation in evaluate(segmentor, candidates_of(segmentor), split)]
        assert {signature.shape for signature in signatures} == {(1000,)}
        assert {signature.dtype for signature in signatures} == {torch.bool}
        assert all(0 < signature.sum() < 1000 for signature in signatures)


def test_signatures_of_another_build_look_at_the_same_pixels(segmentor, segmented):
    again = Run(resolve(segmented.config()), segmented).task
    candidates = candidates_of(segmentor)
    assert_same(evaluate(again, candidates), evaluate(segmentor, candidates))


def test_evaluation_changes_the_selection_only(segmentor):
    candidates = candidates_of(segmentor)
    before = {name: tensor.clone() for name, tensor in segmentor.model.state_dict().items()}
    first = evaluate(segmentor, candidates)
    segmentor.model.train()
    assert_same(evaluate(segmentor, candidates), first)
    for name, tensor in segmentor.model.state_dict().items():
        assert name in candidates.layout.names or torch.equal(tensor, before[name])


def test_no_candidates_are_no_evaluations(segmentor):
    assert evaluate(segmentor, chosen(candidates_of(segmentor), [])) == []


def test_head_is_the_decode_head(segmentor):
    assert segmentor.head == ["decode_head"]
    assert {name.split(".")[0] for name in candidates_of(segmentor).layout.names} == {"decode_head"}


def test_build_gives_the_same_segmentor_for_the_same_seed(tiny_segmentor):
    hook = load_plugin("segmentation").hook
    one = hook.build(cfg=resolve(tiny_segmentor), folder=None).model.state_dict()
    again = hook.build(cfg=resolve(tiny_segmentor), folder=None).model.state_dict()
    other = hook.build(cfg=resolve({**tiny_segmentor, "seed": 1}), folder=None).model.state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["decode_head.conv_seg.weight"], other["decode_head.conv_seg.weight"])


def test_images_that_choose_the_best_can_come_from_the_training_data(tiny_segmentor):
    tiny_segmentor["task"]["data"]["select"] = {"source": "train", "images": 3}
    task = load_plugin("segmentation").hook.build(cfg=resolve(tiny_segmentor), folder=None)
    datasets = {"train": task.splits["train"].dataset, "select": task.splits["select"].split.dataset}
    paths = {name: {data.get_data_info(i)["img_path"] for i in range(len(data))} for name, data in datasets.items()}
    assert [len(paths["train"]), len(paths["select"])] == [5, 3]
    assert not paths["train"] & paths["select"]
    found = evaluate(task, candidates_of(task), "select")
    assert {evaluation.signature.shape for evaluation in found} == {(3 * 334,)}


def test_mixed_precision_with_channels_last_is_collected_and_evaluated(tiny_segmentor, tmp_path, caplog):
    tiny_segmentor["task"]["model"]["channels_last"] = True
    options = tiny_segmentor["task"]["model"]["options"]
    options["optim_wrapper"]["type"] = "Bfloat16OptimWrapper"
    options["train_cfg"] = {"max_iters": 2}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(tiny_segmentor), directory, ["collect"], gates=False)
    run = Run(resolve(directory.config()), directory)
    kernel = run.task.model.backbone.encoder[1][1].convs[0].conv.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    assert kernel.dtype == torch.float32
    assert (run.population.tensor().diff(dim=0) != 0).any(1).all()
    for selector in SELECTORS[:2]:
        assert_together_as_alone(run.task, candidates_of(run.task, selector), "test", caplog.text)


# Networks of mmseg's own configs, made narrow; both have SyncBN.
NETWORKS = {
    "segformer": (
        "mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512",
        {
            "backbone": {
                "embed_dims": 4,
                "num_layers": [1, 1, 1, 1],
                "num_heads": [1, 1, 2, 2],
                "sr_ratios": [4, 2, 1, 1],
                "init_cfg": None,
            },
            "decode_head": {"in_channels": [4, 4, 8, 8], "channels": 8, "num_classes": 11},
        },
    ),
    "pspnet": (
        "mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024",
        {
            "pretrained": None,
            "backbone": {"stem_channels": 8, "base_channels": 4},
            "decode_head": {"in_channels": 32, "channels": 8, "num_classes": 11},
            "auxiliary_head": {"in_channels": 16, "channels": 8, "num_classes": 11},
        },
    ),
}
OTHERS = [
    ("segformer", "head", {}),
    ("segformer", "module(backbone.layers.3.1)", {}),
    ("pspnet", "head+module(auxiliary_head)", {"steps": 2}),
    ("pspnet", "module(decode_head.bottleneck.bn)+buffers", {"mode": "train"}),
]


def loader(split: str) -> dict:
    """Return options that put a split of the scenes in the place of a config's loader."""
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    data = {"type": "BaseSegDataset", "data_root": "", "img_suffix": ".png", "metainfo": {"classes": list(CLASSES)}}
    data |= {"data_prefix": {"img_path": split, "seg_map_path": f"{split}_labels"}, "pipeline": pipeline}
    own = {"_delete_": True, "batch_size": 4, "sampler": {"type": "DefaultSampler", "shuffle": False}}
    return {**own, "dataset": {**data, "serialize_data": False}}


@pytest.mark.parametrize(("name", "selector", "finetune"), OTHERS, ids=[f"{name}, {s}" for name, s, _ in OTHERS])
def test_network_of_a_config_of_mmseg_is_fine_tuned_and_evaluated(
    tiny_segmentor, tmp_path, name, selector, finetune, caplog
):
    config, model = NETWORKS[name]
    options = {"model": {**copy.deepcopy(model), "data_preprocessor": {"size": [64, 64]}}}
    options |= {"train_dataloader": loader("train"), "val_dataloader": loader("select")}
    tiny_segmentor["task"]["model"] = {"config": config, "options": {**options, "test_dataloader": loader("test")}}
    tiny_segmentor["collect"] = {"train": {"enabled": False}, "finetune": {"steps": 1, **finetune}}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve({**tiny_segmentor, "select": selector}), directory, ["collect"], gates=False)
    run = Run(resolve(directory.config()), directory)
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in run.task.model.modules())
    initial = load_plugin("segmentation").hook.build(cfg=resolve(directory.config()), folder=None).model.state_dict()
    vectors = run.population.tensor()
    assert len(vectors) == finetune.get("steps", 1)
    assert vectors.isfinite().all()
    last = run.population.layout.unflatten(vectors[-1])
    moved = {tensor_name for tensor_name, tensor in last.items() if not torch.equal(tensor, initial[tensor_name])}
    assert len(moved) > 0.9 * len(last)
    assert {tensor_name.partition(".")[0] for tensor_name in moved} == {n.partition(".")[0] for n in last}
    assert_together_as_alone(run.task, candidates_of(run.task, selector), "test", caplog.text)


@pytest.fixture(scope="module")
def exported(segmented, tmp_path_factory, load_tool):
    """Return the path to which the tool has written the best generated candidate."""
    path = tmp_path_factory.mktemp("exported") / "model.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export.py", str(segmented.path), "-o", str(path)])
        assert load_tool("export").main() == 0
    return path


def test_exported_candidate_segments_in_mmseg_as_it_did_in_the_run(exported, segmentor, segmented):
    from mmseg.apis import inference_model, init_model

    best = read_json(segmented.path / "report" / "summary.json")["sources"]["generated"]["best_index"]
    run = Run(resolve(segmented.config()), segmented)
    vectors = read_tensors(segmented.path / "samples" / "vectors.safetensors")["vectors"]
    run.candidates(vectors).load(segmentor.model, best)
    model = init_model(str(exported.with_suffix(".py")), str(exported), device="cpu")
    assert model.dataset_meta["classes"] == CLASSES
    data = segmentor.splits["test"]
    metric, wrong = data.metric.another(), []
    for index in range(len(data.split.dataset)):
        sample, packed = data.split.dataset.get_data_info(index), data.split.dataset[index]
        labels = inference_model(model, sample["img_path"]).pred_sem_seg.data
        with torch.no_grad():
            batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
            own = segmentor.model.eval().test_step(batch)[0]
        assert torch.equal(labels, own.pred_sem_seg.data)
        assert len(labels.unique()) > 1
        metric.process({}, [{"pred_sem_seg": {"data": labels}, "gt_sem_seg": {"data": own.gt_sem_seg.data}}])
        wrong.append(data.pixels.wrong(own, labels))
    lines = lines_of(segmented.path / "evaluation" / "generated.jsonl")
    recorded = next(line for line in lines if line["split"] == "test" and line["index"] == best)
    figures = metric.compute_metrics(metric.results)
    assert figures.pop("mIoU") == pytest.approx(recorded["metric"], abs=1e-4)  # other batches: other roundings
    assert figures == pytest.approx(recorded["details"], abs=1e-3)
    signature = read_tensors(segmented.path / "evaluation" / "generated.safetensors")["test.signature"][best]
    assert (torch.cat(wrong) != signature).sum() <= 2


def test_exported_weights_are_those_of_the_candidate_in_the_frozen_network(exported, segmented):
    state = torch.load(exported, weights_only=True)["state_dict"]
    base = read_tensors(segmented.base)
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, base[name])}
    assert set(state) == set(base)
    assert changed == {entry["name"] for entry in read_json(segmented.path / "population" / "layout.json")}


def opened(path: Path, monkeypatch, **options):
    """Return a shipped config and mmseg's config that it names."""
    from pdiff_plugins.openmmlab.libraries import MMSEG, open_config

    monkeypatch.chdir(ROOT)  # the configs name files of the checkout
    config = load_config(None, str(path), {}, {})
    return config, open_config(MMSEG, **{**config.task.model, **options})


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_shipped_config_has_images_that_choose_the_best(path, monkeypatch):
    from pdiff_plugins.openmmlab.data import select_loader

    config, values = opened(path, monkeypatch)
    assert select_loader(values, config.task.data.select.source).dataset.pipeline


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_loss_of_a_config_of_our_own_can_be_computed(path, monkeypatch, library):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    _, values = opened(path, monkeypatch)
    with library.scope():
        model = library.registry("MODELS").build(values.model).train()
    ignored = values.train_dataloader.dataset.get("ignore_index", 255)
    labels = torch.randint(0, 11, (2, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    labels[..., :4] = ignored
    samples = [SegDataSample(metainfo={"img_shape": (32, 32)}, gt_sem_seg=PixelData(data=label)) for label in labels]
    losses = model.loss(torch.rand(2, 3, 32, 32), samples)
    assert losses["decode.loss_ce"].isfinite()


def test_options_are_left_as_they_were_given(tiny_segmentor, library):
    from pdiff_plugins.openmmlab.libraries import open_config

    model = tiny_segmentor["task"]["model"]
    model["options"]["test_dataloader"] = loader("test")
    before = copy.deepcopy(model)
    first, again = (open_config(library, **model).test_dataloader for _ in range(2))
    assert first == again
    assert model == before


def test_options_of_a_yaml_file_can_change_what_mmseg_wants_as_a_tuple(tiny_segmentor):
    sizes = {"2": {"scale": [64, 64]}, "3": {"crop_size": [64, 64]}}
    tiny_segmentor["task"]["model"]["options"]["train_dataloader"]["dataset"]["pipeline"] = sizes
    task = load_plugin("segmentation").hook.build(cfg=resolve(tiny_segmentor), folder=None)
    assert task.splits["train"].dataset[0]["inputs"].shape[-1] <= 64


def together(task, candidates, split: str = "test"):
    """Return what `ensemble` returns."""
    return load_plugin("segmentation").hook.ensemble(task=task, candidates=candidates, split=split)


def test_an_ensemble_of_one_is_that_candidate(segmentor):
    candidates = candidates_of(segmentor)
    assert_same([together(segmentor, chosen(candidates, [2]))], [evaluate(segmentor, candidates)[2]])


def test_an_ensemble_averages_class_probabilities(segmentor):
    from pdiff_plugins.segmentation.data import Record

    candidates, data = candidates_of(segmentor), segmentor.splits["test"]
    record = Record(data)
    for batch in data.split.batches():
        total = 0
        for index in range(len(candidates)):
            candidates.load(segmentor.model, index)
            with torch.no_grad():
                samples = segmentor.model.eval().test_step(batch)
            total = total + torch.stack([sample.seg_logits.data.softmax(0) for sample in samples])
        record.add(samples, list(total.argmax(1, keepdim=True)))
    assert_same([together(segmentor, candidates)], [record.evaluation()])


def test_two_classes_in_one_channel_are_told_apart_by_the_threshold_of_the_head(segmentor, monkeypatch):
    from pdiff_plugins.segmentation.data import labels_of

    monkeypatch.setattr(segmentor.model.decode_head, "threshold", 0.3)
    assert labels_of(segmentor.model, torch.tensor([[[0.2, 0.4, 0.9]]])).tolist() == [[[0, 1, 1]]]


def test_candidates_are_measured_on_training_images_as_the_test_sees_them(segmentor):
    evaluations = evaluate(segmentor, candidates_of(segmentor), "train")
    assert len(evaluations) == 4
    seen, test = (segmentor.splits[name].split.dataset[0]["inputs"] for name in ("seen", "test"))
    assert seen.shape == test.shape
