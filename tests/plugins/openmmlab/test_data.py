"""The splits of a config: which images are in which, that none is in two, and every way to describe them wrongly."""

import copy
import dataclasses
import json
import shutil

import pytest
import torch
from mmengine.config import Config

pytest.importorskip("mmdet")

from pdiff_plugins.openmmlab.data import (
    Shared,
    build_splits,
    choose,
    evaluator_settings,
    image_paths,
    keep,
    seen_dataset,
    subset,
    use_root,
    without_images,
)
from pdiff_plugins.openmmlab.libraries import open_config

from pdiff.runtime.errors import PdiffError

TEST_AS_VAL = {"val_dataloader.dataset.ann_file": "test.json", "val_dataloader.dataset.data_prefix.img": "test/"}
TRAIN_AS_VAL = {"val_dataloader.dataset.ann_file": "train.json", "val_dataloader.dataset.data_prefix.img": "train/"}
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
PLAIN = {f"{loader}.dataset.serialize_data": False for loader in LOADERS}  # to save time, as in conftest.py


@pytest.fixture
def build(mmdet, tiny_config):
    """Return a function from options and settings to the splits of the tiny config."""

    def splits(options: dict | None = None, seed: int = 0, **settings):
        return build_splits(mmdet, tiny_config(options), seed, **settings)

    return splits


def names(split) -> list[str]:
    """Return the paths of a split's images, from their folder on."""
    return ["/".join(path.split("/")[-2:]) for path in image_paths(split.dataset)]


def raised(function, *args, **kwargs) -> str:
    """Return the line of the error that a call ends with."""
    with pytest.raises(PdiffError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_splits_are_those_of_the_config(splits):
    assert list(splits) == ["train", "select", "test"]
    for name, count in {"train": 8, "select": 4, "test": 4}.items():
        assert names(splits[name]) == [f"{name}/{index:06d}.png" for index in range(count)]
        assert splits[name].dataset.metainfo["classes"] == tuple("0123456789")


def test_batches_are_those_of_the_config_and_share_the_data_set(splits):
    loader = splits["test"].batches()
    assert isinstance(loader.dataset, Shared)
    assert loader.dataset.dataset is splits["test"].dataset
    assert loader.dataset.metainfo == splits["test"].dataset.metainfo
    (batch,) = loader
    assert [sample.img_id for sample in batch["data_samples"]] == [1, 2, 3, 4]
    assert [image.shape[0] for image in batch["inputs"]] == [3] * 4
    assert len(splits["train"].batches()) == 4


def test_a_shared_data_set_is_not_copied(splits):
    shared = Shared(splits["test"].dataset)
    assert copy.deepcopy({"dataset": [shared]})["dataset"][0] is shared
    assert len(shared) == 4
    assert torch.equal(shared[2]["inputs"], splits["test"].dataset[2]["inputs"])


def test_building_changes_nothing_in_the_config(mmdet, tiny_config):
    config = tiny_config()
    before = copy.deepcopy(config.to_dict())
    build_splits(mmdet, config, 0, select={"source": "train", "images": 2})
    assert config.to_dict() == before


def test_images_of_select_are_held_out_of_train(build):
    splits = build(select={"source": "train", "images": 3})
    train, select = names(splits["train"]), names(splits["select"])
    assert (len(train), len(select)) == (5, 3)
    assert sorted(train + select) == [f"train/{index:06d}.png" for index in range(8)]
    assert names(splits["test"]) == [f"test/{index:06d}.png" for index in range(4)]


def test_images_held_out_of_train_are_seen_as_those_of_test(build):
    splits = build(select={"source": "train", "images": 3})
    transforms = [[type(t).__name__ for t in splits[name].dataset.pipeline.transforms] for name in ("select", "test")]
    assert transforms[0] == transforms[1]
    assert splits["select"].loader == splits["test"].loader
    (batch,) = splits["select"].batches()
    (again,) = splits["select"].batches()
    assert all(torch.equal(*images) for images in zip(batch["inputs"], again["inputs"], strict=True))
    assert {image.shape for image in batch["inputs"]} == {splits["test"].dataset[0]["inputs"].shape}


def test_seen_images_are_training_images_as_those_of_test(build):
    splits = build(seen=True, train={"images": 6})
    assert len(names(splits["seen"])) == len(names(splits["select"])) == 4
    assert set(names(splits["seen"])) <= {f"train/{index:06d}.png" for index in range(8)}
    assert not set(names(splits["seen"])) & set(names(splits["select"]))
    seen, test = (splits[name].dataset.pipeline.transforms[-1].meta_keys for name in ("seen", "test"))
    assert seen == test


@pytest.mark.parametrize("wrapper", ["RepeatDataset", "ConcatDataset"])
def test_seen_images_come_out_of_their_wrapper(wrapper, tiny_config):
    plain = tiny_config().train_dataloader.dataset
    inner = {"dataset": plain, "times": 2} if wrapper == "RepeatDataset" else {"datasets": [plain]}
    found = seen_dataset(Config({"type": wrapper, **inner}), [{"type": "PackDetInputs"}])
    found = found if wrapper == "RepeatDataset" else found.datasets[0]
    assert (found.type, found.ann_file, found.pipeline) == (plain.type, plain.ann_file, [{"type": "PackDetInputs"}])
    assert plain.pipeline != found.pipeline


def test_a_config_without_validation_can_hold_images_out_of_train(build):
    splits = build({"val_dataloader": None}, select={"source": "train", "images": 2})
    assert {name: len(split.dataset) for name, split in splits.items()} == {"train": 6, "select": 2, "test": 4}


@pytest.mark.parametrize("source", ["val", "train"])
def test_choice_of_images_depends_on_the_seed_alone(build, source):
    settings = {"train": {"images": 2}, "select": {"source": source, "images": 2}, "test": {"images": 2}}
    one = [names(split) for split in build(**settings).values()]
    torch.manual_seed(7)
    assert [names(split) for split in build(**settings).values()] == one
    others = [[names(split) for split in build(seed=seed, **settings).values()] for seed in range(1, 4)]
    assert any(other != one for other in others)


def test_limits_take_some_images_in_order(build):
    splits = build(train={"images": 3}, select={"images": 2}, test={"images": 1})
    assert [len(names(split)) for split in splits.values()] == [3, 2, 1]
    for name, split in splits.items():
        assert names(split) == sorted(names(split))
        assert {path.split("/")[0] for path in names(split)} == {name}


def test_limits_of_nothing_are_all_images(build):
    splits = build(train={"images": None}, select={"source": "val", "images": None}, test={})
    assert [len(split.dataset) for split in splits.values()] == [8, 4, 4]


@pytest.mark.parametrize(("name", "count"), [("train", 8), ("select", 4), ("test", 4)])
def test_more_images_than_there_are_are_refused(build, name, count):
    line = f"task.data.{name}.images: got {count + 1}, expected at most {count}, which are there."
    assert raised(build, **{name: {"images": count + 1}}) == line


def test_more_images_than_are_left_are_refused(build):
    line = "task.data.train.images: got 6, expected at most 5, which are there."
    assert raised(build, train={"images": 6}, select={"source": "train", "images": 3}) == line


@pytest.mark.parametrize("images", [0, -1, 1.5, "3", True])
@pytest.mark.parametrize("name", ["train", "select", "test"])
def test_numbers_of_images_that_are_none_are_refused(build, name, images):
    line = f"task.data.{name}.images: got {images!r}, expected an integer from 1 on."
    assert raised(build, **{name: {"images": images}}) == line


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"train": {"image": 3}}, "task.data.train: got unknown key 'image'. Did you mean 'images'? Known: images."),
        ({"test": {"source": "val"}}, "task.data.test: got unknown key 'source'. Known: images."),
        ({"select": {"n": 3}}, "task.data.select: got unknown key 'n'. Known: images, source."),
        ({"select": "val"}, "task.data.select: got 'val', expected a section. Write keys with their values below it."),
        ({"select": {"source": "vall"}}, "task.data.select.source: got 'vall'. Did you mean 'val'? Known: train, val."),
        ({"select": {"source": 3}}, "task.data.select.source: got 3. Known: train, val."),
        ({"scenes": {"siz": 64}}, "task.data.scenes: got unknown key 'siz'. Did you mean 'size'?"),
    ],
)
def test_unknown_settings_are_refused_where_they_stand(build, settings, line):
    assert raised(build, **settings).startswith(line)


def test_a_config_without_validation_is_refused_when_select_needs_it(build):
    line = "task.data.select.source: got 'val', but the config has no val_dataloader. Use train."
    assert raised(build, {"val_dataloader": None}) == line


@pytest.mark.parametrize(("options", "other"), [(TEST_AS_VAL, "test"), (TRAIN_AS_VAL, "train")])
def test_select_from_the_images_of_another_split_are_held_out_of_it(build, options, other):
    before = build()
    splits = build(options, select={"images": 2})
    assert len(names(splits["select"])) == 2
    assert sorted(names(splits["select"]) + names(splits[other])) == names(before[other])


@pytest.mark.parametrize(
    ("options", "select", "other"),
    [(TEST_AS_VAL, {}, "test"), (TRAIN_AS_VAL, {}, "train"), ({}, {"source": "train"}, "train")],
)
def test_select_that_takes_all_images_of_another_split_is_refused(build, options, select, other):
    line = raised(build, options, select=select)
    assert line.startswith(f"task.data.select: takes all images of {other}")
    assert "Give task.data.select.images" in line


def test_line_about_select_from_train_advises_nothing_that_is_there_already(build):
    assert "source=train" not in raised(build, select={"source": "train"})


def test_images_are_known_again_by_another_spelling_of_their_path(build):
    options = {**TEST_AS_VAL, "val_dataloader.dataset.data_prefix.img": "./test/../test/"}
    splits = build(options, select={"images": 2})
    assert len(splits["test"].dataset) == 2


@pytest.fixture
def wrapped(tiny_config, scenes):
    """Return a function from the type of a wrapper and its settings to options that wrap the training data in it."""

    def options(kind: str, **settings) -> dict:
        inner = tiny_config().train_dataloader.dataset.to_dict()
        return {"train_dataloader.dataset": {"_delete_": True, "type": kind, "dataset": inner, **settings}}

    return options


@pytest.fixture
def build_wrapped(mmdet, scenes):
    """Return a function from options and settings to the splits of the shipped config, its roots set by options."""

    def splits(options: dict, **settings):
        roots = {f"{loader}.dataset.data_root": f"{scenes}/" for loader in LOADERS[1:]}
        given = {**roots, **PLAIN, "train_dataloader.batch_size": 2, **options}
        config = open_config(mmdet, "pdiff_plugins.detection::fcos_r18_digits", options=given)
        return build_splits(mmdet, config, 0, **settings)

    return splits


def test_training_data_that_are_repeated_are_taken_as_they_are(build_wrapped, wrapped):
    splits = build_wrapped(wrapped("RepeatDataset", times=2))
    assert [len(split.dataset) for split in splits.values()] == [16, 4, 4]
    batch = next(iter(splits["train"].batches()))
    assert len(batch["inputs"]) == 2


WRAPPERS = [("RepeatDataset", {"times": 2}), ("MultiImageMixDataset", {"pipeline": []})]


@pytest.mark.parametrize(("kind", "settings"), WRAPPERS)
def test_images_of_select_are_taken_out_of_what_a_wrapper_holds(build_wrapped, wrapped, kind, settings):
    splits = build_wrapped(wrapped(kind, **settings), select={"source": "train", "images": 3}, seen=True)
    select, train, seen = (set(names(splits[name])) for name in ("select", "train", "seen"))
    assert (len(select), len(train), len(seen)) == (3, 5, 3)
    assert not select & train
    assert seen <= train
    assert type(splits["train"].dataset).__name__ == kind
    assert len(splits["train"].dataset) == 5 * settings.get("times", 1)


@pytest.mark.parametrize(("kind", "settings"), WRAPPERS)
def test_a_wrapper_holds_as_many_images_as_are_wanted(build_wrapped, wrapped, kind, settings):
    splits = build_wrapped(wrapped(kind, **settings), train={"images": 2})
    assert len(set(names(splits["train"]))) == 2


def test_images_are_taken_out_of_each_of_several_data_sets(build_wrapped, tiny_config):
    plain = tiny_config().train_dataloader.dataset.to_dict()
    both = [{**plain, "indices": 4}, {**plain, "indices": [7, 5, 6]}]
    options = {"train_dataloader.dataset": {"_delete_": True, "type": "ConcatDataset", "datasets": both}}
    splits = build_wrapped(options, select={"source": "train", "images": 2})
    assert len(names(splits["train"])) == 5
    assert sorted(names(splits["train"]) + names(splits["select"])) == [
        f"train/{i:06d}.png" for i in (0, 1, 2, 3, 5, 6, 7)
    ]


@pytest.mark.parametrize(
    ("own", "kept"),
    [(None, [1, 2]), ([9, 7, 5], [7, 5]), (3, [1, 2]), (-3, [-2, -1])],
    ids=["all", "list", "first", "last"],
)
def test_a_subset_of_a_subset_is_one_of_the_annotations(own, kept):
    assert subset(own, [1, 2]) == kept


def test_images_cannot_be_taken_out_of_a_data_set_that_does_not_know_how(splits):
    line = "task.data.train: cannot take images out of a Shared. Give the config one of mmengine's data sets, or "
    assert raised(keep, Shared(splits["train"].dataset), [0], "train").startswith(line)


def test_images_of_train_need_the_pipeline_of_test(mmdet, tiny_config):
    config = tiny_config()
    del config.test_dataloader.dataset["pipeline"]
    line = "task.data.select.source: got 'train', but the data set of test has no pipeline. Use val."
    assert raised(build_splits, mmdet, config, 0, select={"source": "train", "images": 2}) == line


def test_root_takes_the_place_of_every_root(mmdet, scenes, splits):
    config = open_config(mmdet, "pdiff_plugins.detection::fcos_r18_digits", options=PLAIN)
    found = build_splits(mmdet, config, 0, root=str(scenes))
    assert [names(split) for split in found.values()] == [names(split) for split in splits.values()]
    assert {config[loader].dataset.data_root for loader in LOADERS} == {f"{scenes}/"}
    assert config.val_evaluator.ann_file == str(scenes / "select.json")
    assert config.test_evaluator.ann_file == str(scenes / "test.json")


def test_scenes_are_composed_and_their_folder_is_the_root(mmdet, scenes, splits):
    config = open_config(mmdet, "pdiff_plugins.detection::fcos_r18_digits", options=PLAIN)
    settings = {"train": 8, "select": 4, "test": 4, "size": 64, "cache": str(scenes.parent)}
    found = build_splits(mmdet, config, 0, scenes=settings)
    assert [names(split) for split in found.values()] == [names(split) for split in splits.values()]
    assert config.train_dataloader.dataset.data_root == f"{scenes}/"


def test_root_reaches_data_sets_in_wrappers_and_each_of_several_evaluators(tiny_config, wrapped, tmp_path):
    config = tiny_config()
    config.merge_from_dict(wrapped("RepeatDataset", times=2))
    config.test_evaluator = [{"type": "CocoMetric", "ann_file": "here.json"}, {"type": "DumpResults"}]
    use_root(config, tmp_path)
    assert config.train_dataloader.dataset.dataset.data_root == f"{tmp_path}/"
    assert config.test_evaluator[0].ann_file == str(tmp_path / "test.json")


def test_root_for_a_config_without_roots_is_refused(tiny_config, wrapped, tmp_path):
    config = tiny_config()
    config.merge_from_dict(wrapped("RepeatDataset", times=2))
    del config.train_dataloader.dataset.dataset["data_root"]
    line = f"task.data.root: got {tmp_path}, but the data set of train_dataloader has no data_root."
    assert raised(use_root, config, tmp_path) == f"{line} Leave it out, and change the config."


@pytest.fixture
def root(scenes, tmp_path):
    """Return a copy of the scenes that may be damaged."""
    return shutil.copytree(scenes, tmp_path / "scenes")


def edit(path, **changes) -> None:
    """Change parts of annotations."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cannot_be_built(name: str) -> str:
    """Return the beginning of the line about a data set that cannot be built."""
    return f"task.data: the data set of {name} cannot be built ("


@pytest.mark.parametrize("name", ["train", "select", "test"])
def test_annotations_that_are_not_there_are_named(build, root, name):
    (root / f"{name}.json").unlink()
    line = raised(build, root=str(root))
    assert line.startswith(cannot_be_built(name))
    assert f"{root}/{name}.json" in line
    assert line.endswith("Check its data_root, ann_file and metainfo in task.model.config.")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSONDecodeError: Expecting value: line 1 column 1"),
        ('{"images": [', "JSONDecodeError: Expecting value: line 1 column 13"),
        ("[]", "annotation file format <class 'list'> not supported"),
        ("{}", "KeyError: 'categories'"),
    ],
)
def test_annotations_that_are_none_are_refused_with_the_reason(build, root, text, reason):
    (root / "test.json").write_text(text)
    line = raised(build, root=str(root))
    assert line.startswith(cannot_be_built("test"))
    assert reason in line


CLASSES = {f"{loader}.dataset.metainfo.classes": ["cat", "dog"] for loader in LOADERS}


@pytest.mark.parametrize("serialized", [False, True])
@pytest.mark.parametrize(
    ("changes", "options"),
    [({"images": [], "annotations": []}, {}), ({"annotations": []}, {}), ({"categories": []}, {}), ({}, CLASSES)],
    ids=["images", "annotations", "categories", "classes"],
)
def test_annotations_without_an_image_to_train_on_are_refused(build, root, changes, options, serialized):
    edit(root / "train.json", **changes)
    options = {**options, "train_dataloader.dataset.serialize_data": serialized}
    line = "task.data: the data set of train has no image (train.json). "
    end = "Check the annotations, and that metainfo names the classes in them."
    assert raised(build, options, root=str(root)) == line + end


def test_folder_without_an_image_is_refused_with_what_names_it():
    settings = {"data_root": "scenes/", "data_prefix": {"img_path": "test", "seg_map_path": "test_labels"}}
    line = "task.data: the data set of test has no image (scenes/test). "
    remedy = "Check data_root, data_prefix and img_suffix in task.model.config."
    assert str(without_images(settings, "test")) == line + remedy


@pytest.mark.parametrize("serialized", [False, True])
def test_annotations_without_an_image_to_test_on_are_refused(build, root, serialized):
    edit(root / "test.json", images=[], annotations=[])
    options = {"test_dataloader.dataset.serialize_data": serialized}
    line = raised(build, options, root=str(root))
    assert line.startswith("task.data: the data set of test has no image (test.json). ")


@pytest.mark.parametrize("name", ["train", "select", "test"])
def test_an_image_that_is_not_there_is_named(build, root, name):
    (root / name / "000002.png").unlink()
    line = f"task.data: the data set of {name} names {root}/{name}/000002.png, which is not there. Check data_prefix."
    assert raised(build, root=str(root)) == line


def test_a_backslash_in_the_name_of_an_image_is_pointed_at(build, root):
    images = json.loads((root / "test.json").read_text())["images"]
    edit(root / "test.json", images=[{**image, "file_name": f"a\\{image['file_name']}"} for image in images])
    line = f"task.data: the data set of test names {root}/test/a\\000000.png, which is not there."
    assert raised(build, root=str(root)) == f"{line} Write / for the backslash."


def test_a_data_set_inside_a_wrapper_that_is_no_section_is_refused(mmdet, tiny_config):
    config = tiny_config()
    config.test_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": "coco"}
    line = "test_dataloader.dataset: got 'coco', expected a section. Write keys with their values below it."
    assert raised(build_splits, mmdet, config, 0) == line


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_refused_in_one_line(build, root, workers):
    split = build({"test_dataloader.num_workers": workers}, root=str(root))["test"]
    (root / "test" / "000002.png").write_bytes(b"no image")
    batches = iter(split.batches())
    line = raised(list, batches)
    if workers:
        batches._shutdown_workers()  # torch waits 5 s for each that the garbage collector ends
    assert line.startswith("task.data: sample 2 cannot be loaded (")
    assert line.endswith("). Check its file, and the pipeline in task.model.config.")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"train_dataloader.dataset.type": "KokoDataset"}, "KokoDataset is not in the mmdet::dataset registry"),
        ({"train_dataloader.dataset.pipeline": [{"type": "Lode"}]}, "Lode is not in the mmdet::transform registry"),
        ({"train_dataloader.dataset.ann_fil": "x"}, "unexpected keyword argument 'ann_fil'"),
    ],
)
def test_a_data_set_that_mmdet_cannot_build_is_refused_with_the_reason(build, options, reason):
    line = raised(build, options)
    assert line.startswith(cannot_be_built("train"))
    assert reason in line


def test_a_data_set_that_is_no_section_is_refused(mmdet, tiny_config):
    config = tiny_config()
    config.test_dataloader.dataset = "coco"
    line = "test_dataloader.dataset: got 'coco', expected a section. Write keys with their values below it."
    assert raised(build_splits, mmdet, config, 0) == line


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_loader_without_a_data_set_is_refused(mmdet, tiny_config, name):
    config = tiny_config()
    config[f"{name}_dataloader"] = {"batch_size": 2}
    assert f"{name}_dataloader" in raised(build_splits, mmdet, config, 0)


def test_settings_of_an_evaluator_are_found_among_several(tiny_config):
    settings = {"type": "mmdet.CocoMetric", "iou_thrs": [0.5], "metric": "bbox", "backend_args": None}
    for evaluator in (settings, [settings], [{"type": "VOCMetric"}, settings]):
        config = tiny_config()
        config.test_evaluator = evaluator
        found = evaluator_settings(config, "CocoMetric", ("iou_thrs", "proposal_nums", "backend_args"))
        assert found == {"iou_thrs": [0.5]}


@pytest.mark.parametrize("evaluator", [None, [], {"type": "VOCMetric"}])
def test_a_config_without_the_evaluator_is_refused(tiny_config, evaluator):
    config = tiny_config()
    config.test_evaluator = evaluator
    line = "task.model.config: its test_evaluator has no CocoMetric, which the candidates are measured with. "
    end = "Add {type: CocoMetric}, and the data that it needs."
    assert raised(evaluator_settings, config, "CocoMetric", ()) == line + end


def test_choice_is_without_repetition_and_of_all_images():
    images = list(range(50))
    chosen = [choose(images, 10, seed, "select") for seed in range(50)]
    assert all(len(set(indices)) == 10 and sorted(indices) == indices for indices in chosen)
    assert {index for indices in chosen for index in indices} == set(images)
    assert list(choose(images, None, 0, "select")) == images
    assert choose(images, 10, 0, "select") != choose(images, 10, 0, "train")


def test_batches_for_a_gpu_are_pinned_unless_the_loader_says(case):
    split = case.task.splits["test"].split
    assert "pin_memory" not in split.loader, "on a CPU"
    assert split.pinned().loader == {**split.loader, "pin_memory": True}
    kept = dataclasses.replace(split, loader={**split.loader, "pin_memory": False})
    assert kept.pinned().loader["pin_memory"] is False
    assert kept.pinned().dataset is split.dataset
