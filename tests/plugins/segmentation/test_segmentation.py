"""What is segmentation's own: mmseg's figures, signatures of pixels, ensembles, networks of mmseg's configs."""

import copy
from pathlib import Path

import pytest
import torch

from pdiff.run import Run
from pdiff.run.config import load_config, resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.storage import read_tensors
from pdiff.stages.pipeline import run_pipeline

pytest.importorskip("mmseg")

ROOT = Path(__file__).parents[3]
CLASSES = ("background", *"0123456789")
EVERY = [ROOT / "plugins/segmentation/default.yaml", *sorted((ROOT / "configs/segmentation").glob("*.yaml"))]
OWN = [path for path in EVERY if path.stem in ("default", "fcn_r18_camvid_head")]


def test_metric_and_details_are_the_figures_of_mmseg(segmentor):
    summary = segmentor.summary()
    assert (summary["metric"]["name"], summary["metric"]["higher_is_better"]) == ("mIoU", True)
    assert 0.05 < summary["metric"]["chance"] < 1 / 5, "most pixels are background, of at most eleven classes"
    for row in summary["sources"].values():
        assert {"mAcc", "aAcc", "IoU/background", "IoU/0"} <= set(row["details"])
        assert {name for name in row["details"] if "/" in name} <= {f"IoU/{name}" for name in CLASSES}
        assert all(0 <= figures["mean"] <= 1 for figures in row["details"].values())
        assert row["mean"] <= row["details"]["IoU/background"]["mean"]
    assert summary["sources"]["trained"]["worst"] < summary["sources"]["trained"]["best"]


def test_mean_is_that_of_the_classes(segmentor):
    for line in segmentor.lines("evaluation/trained.jsonl"):
        classes = [value for name, value in line["details"].items() if name.startswith("IoU/")]
        assert line["metric"] == pytest.approx(sum(classes) / len(classes))


def test_whole_backbone_runs_once_per_batch_for_all_heads(segmentor, calls):
    computed = calls(segmentor.task.model.backbone.decoder[0].conv_block)
    heads = calls(segmentor.task.model.decode_head.conv_seg)
    segmentor.evaluate(segmentor.candidates())
    assert (len(computed), len(heads)) == (2, 2 * 4)


def test_figures_are_those_of_mmseg_with_the_candidate_in_the_network(segmentor):
    from mmseg.evaluation.metrics import IoUMetric

    candidates, data, model = segmentor.candidates(), segmentor.task.splits["test"], segmentor.task.model
    for index, evaluation in enumerate(segmentor.evaluate(candidates)):
        candidates.load(model, index)
        metric = IoUMetric()
        metric.dataset_meta = data.split.dataset.metainfo
        wrong = []
        for batch in data.split.batches():
            with torch.no_grad():
                samples = model.eval().test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in samples])
            wrong += [data.pixels.wrong(sample, sample.pred_sem_seg.data) for sample in samples]
        own = {"mIoU": evaluation.metric, **evaluation.details}
        figures = metric.compute_metrics(metric.results)
        assert {name: round(own[name] * 100, 2) for name in figures} == pytest.approx(figures, abs=1e-4)
        assert torch.equal(evaluation.signature, torch.cat(wrong))


def test_signatures_of_all_candidates_have_the_shape_of_the_pixels(segmentor):
    for split in ("select", "test"):
        signatures = [evaluation.signature for evaluation in segmentor.evaluate(segmentor.candidates(), split)]
        assert {signature.shape for signature in signatures} == {(1000,)}
        assert {signature.dtype for signature in signatures} == {torch.bool}
        assert all(0 < signature.sum() < 1000 for signature in signatures)


def test_images_that_choose_the_best_can_come_from_the_training_data(segmentor):
    values = segmentor.values()
    values["task"]["data"]["select"] = {"source": "train", "images": 3}
    task = segmentor.build(values)
    datasets = {"train": task.splits["train"].dataset, "select": task.splits["select"].split.dataset}
    paths = {name: {data.get_data_info(i)["img_path"] for i in range(len(data))} for name, data in datasets.items()}
    assert [len(paths["train"]), len(paths["select"])] == [5, 3]
    assert not paths["train"] & paths["select"]
    found = segmentor.evaluate(segmentor.candidates(task=task), "select", task)
    assert {evaluation.signature.shape for evaluation in found} == {(3 * 334,)}


def test_mixed_precision_with_channels_last_is_collected_and_evaluated(segmentor, tmp_path, caplog):
    values = segmentor.values()
    values["task"]["model"]["channels_last"] = True
    options = values["task"]["model"]["options"]
    options["optim_wrapper"]["type"] = "Bfloat16OptimWrapper"
    options["train_cfg"] = {"max_iters": 2}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(values), directory, ["collect"], gates=False)
    run = Run(resolve(directory.config()), directory)
    kernel = run.task.model.backbone.encoder[1][1].convs[0].conv.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    assert kernel.dtype == torch.float32
    assert (run.population.tensor().diff(dim=0) != 0).any(1).all()
    for selector in ("head", "last_norms(2)"):
        segmentor.assert_together_as_alone(segmentor.candidates(selector, run.task), task=run.task)
    assert "left the recorded path" not in caplog.text


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
    segmentor, tmp_path, name, selector, finetune, caplog
):
    values, (config, model) = segmentor.values(), NETWORKS[name]
    options = {"model": {**copy.deepcopy(model), "data_preprocessor": {"size": [64, 64]}}}
    options |= {"train_dataloader": loader("train"), "val_dataloader": loader("select")}
    values["task"]["model"] = {"config": config, "options": {**options, "test_dataloader": loader("test")}}
    values["collect"] = {"train": {"enabled": False}, "finetune": {"steps": 2, **finetune}}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve({**values, "select": selector}), directory, ["collect"], gates=False)
    run = Run(resolve(directory.config()), directory)
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in run.task.model.modules())
    initial = segmentor.build(directory.config()).model.state_dict()
    vectors = run.population.tensor()
    assert len(vectors) == finetune.get("steps", 2)
    assert vectors.isfinite().all()
    last = run.population.layout.unflatten(vectors[-1])
    moved = {tensor_name for tensor_name, tensor in last.items() if not torch.equal(tensor, initial[tensor_name])}
    assert len(moved) > 0.9 * len(last)
    assert {tensor_name.partition(".")[0] for tensor_name in moved} == {n.partition(".")[0] for n in last}
    segmentor.assert_together_as_alone(segmentor.candidates(selector, run.task), task=run.task)
    assert "left the recorded path" not in caplog.text


def test_exported_candidate_segments_in_mmseg_as_it_did_in_the_run(exported, segmentor):
    from mmseg.apis import inference_model, init_model

    best, path = segmentor.summary()["sources"]["generated"]["best_index"], exported("segmentation")
    run = Run(resolve(segmentor.run.config()), segmentor.run)
    vectors = read_tensors(segmentor.run.path / "samples" / "vectors.safetensors")["vectors"]
    run.candidates(vectors).load(segmentor.task.model, best)
    model = init_model(str(path.with_suffix(".py")), str(path), device="cpu")
    assert model.dataset_meta["classes"] == CLASSES
    data = segmentor.task.splits["test"]
    metric, wrong = data.metric.another(), []
    for index in range(len(data.split.dataset)):
        sample, packed = data.split.dataset.get_data_info(index), data.split.dataset[index]
        labels = inference_model(model, sample["img_path"]).pred_sem_seg.data
        with torch.no_grad():
            batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
            own = segmentor.task.model.eval().test_step(batch)[0]
        assert torch.equal(labels, own.pred_sem_seg.data)
        assert len(labels.unique()) > 1
        metric.process({}, [{"pred_sem_seg": {"data": labels}, "gt_sem_seg": {"data": own.gt_sem_seg.data}}])
        wrong.append(data.pixels.wrong(own, labels))
    lines = segmentor.lines("evaluation/generated.jsonl")
    recorded = next(line for line in lines if line["split"] == "test" and line["index"] == best)
    figures = metric.compute_metrics(metric.results)
    assert figures.pop("mIoU") == pytest.approx(recorded["metric"], abs=1e-4)  # other batches: other roundings
    assert figures == pytest.approx(recorded["details"], abs=1e-3)
    signature = read_tensors(segmentor.run.path / "evaluation" / "generated.safetensors")["test.signature"][best]
    assert (torch.cat(wrong) != signature).sum() <= 2


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
def test_loss_of_a_config_of_our_own_can_be_computed(path, monkeypatch, segmentor):
    library = segmentor.library
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


def test_options_are_left_as_they_were_given(segmentor):
    from pdiff_plugins.openmmlab.libraries import open_config

    library, model = segmentor.library, segmentor.values()["task"]["model"]
    model["options"]["test_dataloader"] = loader("test")
    before = copy.deepcopy(model)
    first, again = (open_config(library, **model).test_dataloader for _ in range(2))
    assert first == again
    assert model == before


def test_options_of_a_yaml_file_can_change_what_mmseg_wants_as_a_tuple(segmentor):
    values = segmentor.values()
    sizes = {"2": {"scale": [64, 64]}, "3": {"crop_size": [64, 64]}}
    values["task"]["model"]["options"]["train_dataloader"]["dataset"]["pipeline"] = sizes
    task = segmentor.build(values)
    assert task.splits["train"].dataset[0]["inputs"].shape[-1] <= 64


def test_an_ensemble_of_one_is_that_candidate(segmentor):
    candidates = segmentor.candidates()
    segmentor.assert_same(segmentor.together(candidates.take([2])), [segmentor.evaluate(candidates)[2]])


def test_an_ensemble_averages_class_probabilities(segmentor):
    from pdiff_plugins.openmmlab.scopes import EVERYTHING
    from pdiff_plugins.segmentation.data import Comparison

    candidates, data, model = segmentor.candidates(), segmentor.task.splits["test"], segmentor.task.model
    comparison = Comparison(model, data, [EVERYTHING])
    for batch in data.split.batches():
        total = 0
        for index in range(len(candidates)):
            candidates.load(model, index)
            with torch.no_grad():
                samples = model.eval().test_step(batch)
            total = total + torch.stack([sample.seg_logits.data.softmax(0) for sample in samples])
        comparison.add(0, samples, list(total.argmax(1, keepdim=True)), torch.tensor(True))
    segmentor.assert_same(segmentor.together(candidates), list(comparison.evaluations(segmentor.task.metric)))


def test_candidates_and_ensembles_in_one_pass_are_what_each_is_alone(segmentor, calls):
    candidates = segmentor.candidates()
    groups = [candidates, candidates.take([1, 2]), candidates.take([3])]
    computed = calls(segmentor.task.model.backbone.decoder[0].conv_block)
    given = {"candidates": candidates, "split": "test", "ensembles": groups}
    found = list(segmentor.hook.evaluate(task=segmentor.task, **given))
    assert len(computed) == 2, "the frozen part once for each batch"
    alone = [segmentor.together(group)[0] for group in groups]
    segmentor.assert_same(found, [*segmentor.evaluate(candidates), *alone])


def test_an_ensemble_with_a_dead_member_is_dead(segmentor):
    candidates = segmentor.candidates()
    candidates.vectors[1, 0] = torch.nan
    dead, alive = segmentor.together(candidates, candidates.take([0, 2, 3]))
    assert dead.metric == segmentor.task.metric.worst
    assert alive.metric > 0
    assert dead.scores.shape == alive.scores.shape
    assert dead.signature.shape == alive.signature.shape


def test_two_classes_in_one_channel_are_told_apart_by_the_threshold_of_the_head(segmentor, monkeypatch):
    from pdiff_plugins.segmentation.data import labels_of

    monkeypatch.setattr(segmentor.task.model.decode_head, "threshold", 0.3)
    assert labels_of(segmentor.task.model, torch.tensor([[[0.2, 0.4, 0.9]]])).tolist() == [[[0, 1, 1]]]
