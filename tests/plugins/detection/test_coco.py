"""COCO's average precision of a candidate, beside mmdet's own metric on the same detections."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")
pytestmark = pytest.mark.usefixtures("detector")

# Ids neither from 1 on nor in the order of the names, so that label, id and alphabet are three different orders.
CATEGORIES = {"zebra": 2, "ant": 5, "mouse": 9}
SIZE = (400, 300)
STATS = {"AP": "mAP", "AP50": "mAP_50", "AP75": "mAP_75"}
SIZES = {"AP_small": "mAP_s", "AP_medium": "mAP_m", "AP_large": "mAP_l"}


def annotations(images: int = 8, objects: int = 9, names: Sequence[str] = tuple(CATEGORIES), seed: int = 0) -> dict:
    """Return COCO annotations of objects of all sizes, every eighth of them a crowd."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(images * objects):
        width, height = (10 * 2 ** (4 * torch.rand(2, generator=rng))).tolist()
        x, y = (torch.rand(2, generator=rng) * torch.tensor([SIZE[0] - width, SIZE[1] - height])).tolist()
        category = CATEGORIES[names[int(torch.randint(len(names), (), generator=rng))]]
        row = {"id": number + 1, "image_id": 10 + number // objects, "category_id": category, "area": width * height}
        rows.append({**row, "bbox": [x, y, width, height], "iscrowd": int(number % 8 == 7)})
    return {
        "images": [{"id": 10 + n, "file_name": f"{n}.png", "width": SIZE[0], "height": SIZE[1]} for n in range(images)],
        "annotations": rows,
        "categories": [{"id": CATEGORIES[name], "name": name} for name in names],
    }


def detections(content: dict, seed: int = 0, false: int = 5) -> dict[int, dict[str, torch.Tensor]]:
    """Return detections by image: every object but some, moved a little, now and then of another class, and noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = {category["id"]: label for label, category in enumerate(content["categories"])}
    found = {}
    for image in (image["id"] for image in content["images"]):
        own = [row for row in content["annotations"] if row["image_id"] == image]
        own = [row for row in own if torch.rand((), generator=rng) < 0.8]
        boxes = torch.tensor([row["bbox"] for row in own]).reshape(-1, 4)
        boxes = boxes + boxes[:, 2:].repeat(1, 2) * 0.06 * torch.randn(len(own), 4, generator=rng)
        noise = torch.rand(false, 4, generator=rng) * 100 + 1
        classes = torch.tensor([labels[row["category_id"]] for row in own]).long()
        classes = torch.where(torch.rand(len(own), generator=rng) < 0.1, (classes + 1) % len(labels), classes)
        found[image] = {
            "bboxes": corners(torch.cat([boxes, noise])),
            "scores": torch.rand(len(own) + false, generator=rng),
            "labels": torch.cat([classes, torch.randint(len(labels), (false,), generator=rng)]),
        }
    return found


def corners(boxes: torch.Tensor) -> torch.Tensor:
    """Return boxes of x, y, width, height as x1, y1, x2, y2."""
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def nothing(content: dict) -> dict[int, dict[str, torch.Tensor]]:
    """Return the detections of a candidate that sees nothing."""
    none = {"bboxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
    return {image["id"]: none for image in content["images"]}


def process(metric, found: dict[int, dict[str, torch.Tensor]]):
    """Show a metric the detections, an image at a time, and return it."""
    for image, instances in found.items():
        metric.process({}, [{"img_id": image, "ori_shape": SIZE[::-1], "pred_instances": instances}])
    return metric


@pytest.fixture
def write(tmp_path):
    """Return a function that writes annotations and returns their path."""

    def write(content: dict, name: str = "annotations.json") -> str:
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    return write


def empty_metric(path: str, content: dict, **settings):
    """Return the metric of candidates for all images and categories of the annotations."""
    from pdiff_plugins.detection.coco import CandidateMetric

    categories = [category["id"] for category in content["categories"]]
    return CandidateMetric(path, [image["id"] for image in content["images"]], categories, **settings)


def figures(path: str, content: dict, found: dict, **settings) -> dict[str, float]:
    """Return the figures of a candidate with these detections."""
    metric = process(empty_metric(path, content, **settings), found)
    return metric.compute_metrics(metric.results)


def figures_of_mmdet(path: str, content: dict, found: dict, classwise: bool = True, **settings) -> dict[str, float]:
    """Return those of mmdet's metric by our names; what no ground truth defines is left out."""
    from mmdet.evaluation.metrics import CocoMetric

    metric = CocoMetric(path, classwise=classwise, **settings)
    metric.dataset_meta = {"classes": sorted(category["name"] for category in content["categories"])}
    values = process(metric, found).compute_metrics(metric.results)
    result = {name: values[f"bbox_{key}"] for name, key in {**STATS, **SIZES}.items()}
    # mmdet names precisions by the categories' order in the file; they come in that of their ids.
    names = [category["name"] for category in content["categories"] if classwise]
    result |= {f"AP/{own}": values[f"{name}_precision"] for name, own in zip(names, by_id(names), strict=True)}
    return {name: float(value) for name, value in result.items() if value >= 0 and not math.isnan(value)}


def by_id(names: Sequence[str]) -> list[str]:
    """Return the names of categories in the order of their ids."""
    return sorted(names, key=CATEGORIES.get)


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Return figures as mmdet gives them."""
    return {name: round(value, 3) for name, value in values.items()}


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_mmdet(write, seed):
    content = annotations(seed=seed)
    path, found = write(content), detections(content, seed)
    own = figures(path, content, found)
    assert set(own) == {*STATS, *SIZES, *(f"AP/{name}" for name in CATEGORIES)}
    assert 0.1 < own["AP"] < own["AP50"] < 1
    assert rounded(own) == figures_of_mmdet(path, content, found)


def test_figures_are_not_rounded(write):
    content = annotations()
    own = figures(write(content), content, detections(content))
    assert own != rounded(own)


@pytest.mark.parametrize("order", [("ant", "mouse", "zebra"), ("zebra", "mouse", "ant")])
def test_categories_may_stand_in_any_order_in_the_file(write, order):
    content = annotations(names=order)
    path, found = write(content), detections(content)
    own = figures(path, content, found)
    assert len({own[f"AP/{name}"] for name in order}) == 3
    assert rounded(own) == figures_of_mmdet(path, content, found)


def test_figures_of_a_class_are_those_of_its_detections_alone(write):
    content = annotations()
    path, found = write(content), detections(content)
    whole = figures(path, content, found)
    for label, name in enumerate(CATEGORIES):
        own = {
            image: {key: values[instances["labels"] == label] for key, values in instances.items()}
            for image, instances in found.items()
        }
        single = figures(path, content, own)
        assert single[f"AP/{name}"] == whole[f"AP/{name}"]
        assert single["AP"] == pytest.approx(whole[f"AP/{name}"] / 3)


def test_images_of_a_subset_are_measured_as_if_there_were_no_others(write):
    content = annotations()
    kept = [image for image in content["images"] if image["id"] % 3]
    ids = {image["id"] for image in kept}
    rows = [row for row in content["annotations"] if row["image_id"] in ids]
    cut = {**content, "images": kept, "annotations": rows}
    found = {image: instances for image, instances in detections(content).items() if image in ids}
    own = figures(write(content), cut, found)
    assert own == figures(write(cut, "cut.json"), cut, found)
    assert rounded(own) == figures_of_mmdet(write(cut, "cut.json"), cut, found)
    assert own != figures(write(content), content, detections(content))


def test_category_that_the_detector_does_not_know_is_left_out(write):
    content = annotations()
    known = {**content, "categories": [c for c in content["categories"] if c["name"] != "ant"]}
    found = detections(known | {"annotations": [row for row in content["annotations"] if row["category_id"] != 5]})
    path = write(content)
    own = figures(path, known, found)
    assert "AP/ant" not in own
    assert rounded(own) == figures_of_mmdet(path, known, found)


def test_class_and_size_without_a_ground_truth_have_no_figure(write):
    content = annotations()
    small = [row for row in content["annotations"] if row["area"] < 32**2 and row["category_id"] != 9]
    content = {**content, "annotations": small}
    path, found = write(content), detections(content)
    own = figures(path, content, found)
    assert set(own) == {"AP", "AP50", "AP75", "AP_small", "AP/zebra", "AP/ant"}
    assert rounded(own) == figures_of_mmdet(path, content, found)


def test_candidate_that_sees_nothing_has_an_average_precision_of_zero(write):
    content = annotations()
    own = figures(write(content), content, nothing(content))
    assert own["AP"] == own["AP50"] == own["AP75"] == 0


def test_candidate_that_sees_nothing_has_the_figures_of_one_that_hits_nothing(write):
    content = annotations()
    wrong = nothing(content)
    wrong[10] = {"bboxes": torch.tensor([[0.0, 0, 1, 1]]), "scores": torch.ones(1), "labels": torch.zeros(1).long()}
    path = write(content)
    assert figures(path, content, nothing(content)) == figures(path, content, wrong)


def test_perfect_candidate_reaches_one(write):
    content = annotations()
    labels = {category["id"]: label for label, category in enumerate(content["categories"])}
    found = {}
    for image in content["images"]:
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"] and not row["iscrowd"]]
        boxes = torch.tensor([row["bbox"] for row in rows], dtype=torch.float64)
        classes = torch.tensor([labels[row["category_id"]] for row in rows])
        found[image["id"]] = {"bboxes": corners(boxes), "scores": torch.ones(len(rows)), "labels": classes}
    assert set(figures(write(content), content, found).values()) == {1.0}


def perfect(content: dict) -> dict:
    """Return detections that are the objects themselves."""
    labels = {category["id"]: label for label, category in enumerate(content["categories"])}
    found = {}
    for image in content["images"]:
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        boxes = corners(torch.tensor([row["bbox"] for row in rows], dtype=torch.float64).reshape(-1, 4))
        classes = torch.tensor([labels[row["category_id"]] for row in rows]).long()
        found[image["id"]] = {"bboxes": boxes, "scores": torch.ones(len(rows)), "labels": classes}
    return found


def test_annotation_with_the_id_zero_can_be_found_which_mmdet_takes_for_not_found(write):
    content = annotations(images=1, objects=3)
    for number, (row, category) in enumerate(zip(content["annotations"], CATEGORIES.values(), strict=True)):
        row |= {"id": number, "category_id": category}
    path, found = write(content), perfect(content)
    assert figures(path, content, found)["AP"] == 1
    assert figures_of_mmdet(path, content, found)["AP"] < 0.9


KINDS = {
    "from zero": lambda number: number,
    "texts": lambda number: f"id {number:03}",
    "floats": float,
    "huge": lambda number: 10**20 + number,
    "negative": lambda number: number - 1000,
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_every_kind_give_the_same_figures(write, kind):
    content, new = annotations(), KINDS[kind]
    found, expected = detections(content), figures(write(content), content, detections(content))
    order = {row["id"]: new(number) for number, row in enumerate(content["annotations"])}
    for key in ("images", "categories"):
        for record in content[key]:
            record["id"] = new(record["id"])
    for row in content["annotations"]:
        row |= {"id": order[row["id"]], "image_id": new(row["image_id"]), "category_id": new(row["category_id"])}
    found = {new(image): instances for image, instances in found.items()}
    assert figures(write(content, "other.json"), content, found) == expected


@pytest.mark.parametrize("box", [[5, 5, 0, 10], [5, 5, 0, 0], [500, 5, 20, 20], [-50, -50, 20, 20], [-5, -5, 20, 20]])
def test_boxes_that_mmdet_does_not_train_with_count_as_in_mmdet(write, box):
    content = annotations()
    for number in (0, 9, 20):
        content["annotations"][number] |= {"bbox": box, "area": 100, "iscrowd": 0}
    content["annotations"][1]["area"] = 0
    path = write(content)
    for found in (detections(content), perfect(content)):
        assert rounded(figures(path, content, found)) == figures_of_mmdet(path, content, found)


def test_object_that_says_nothing_of_a_crowd_is_none(write):
    content = annotations()
    for row in content["annotations"]:
        row["iscrowd"] = 0
    found = detections(content)
    expected = figures(write(content), content, found)
    for row in content["annotations"]:
        del row["iscrowd"]
    assert figures(write(content), content, found) == expected


def test_accumulators_do_not_share_results(write):
    content = annotations()
    path, good, bad = write(content), detections(content), detections(content, seed=1, false=50)
    metric = empty_metric(path, content)
    one, other = metric.another(), metric.another()
    for image in good:  # batch by batch, as candidates are evaluated
        process(one, {image: good[image]})
        process(other, {image: bad[image]})
    assert metric.results == []
    assert metric.another().results == []
    assert one.compute_metrics(one.results) == figures(path, content, good)
    assert other.compute_metrics(other.results) == figures(path, content, bad)
    assert one.compute_metrics(one.results) == figures(path, content, good), "computed twice"


def test_thresholds_of_the_overlap_are_heeded(write):
    content = annotations()
    path, found = write(content), detections(content)
    own = figures(path, content, found, iou_thrs=[0.5, 0.6])
    assert own["AP"] > figures(path, content, found)["AP"]
    assert "AP75" not in own
    expected = figures_of_mmdet(path, content, found, classwise=False, iou_thrs=np.array([0.5, 0.6]))
    assert {name: round(value, 3) for name, value in own.items() if "/" not in name} == expected


def test_single_threshold_of_the_overlap_is_heeded(write):
    content = annotations()
    path, found = write(content), detections(content)
    own = figures(path, content, found, iou_thrs=0.5)
    assert own["AP"] == own["AP50"] == figures(path, content, found)["AP50"]


def crowded(write):
    """Return path, content and detections of one image with 20 objects, found by the last of 150 detections."""
    content = annotations(images=1, objects=20, names=["ant"])
    rows = torch.tensor([row["bbox"] for row in content["annotations"]])
    boxes = corners(torch.cat([torch.tensor([[390.0, 290, 5, 5]]).repeat(130, 1), rows]))
    found = {"bboxes": boxes, "scores": torch.linspace(1, 0.1, 150), "labels": torch.zeros(150).long()}
    return write(content), content, {10: found}


def test_numbers_of_detections_are_heeded(write):
    path, content, found = crowded(write)
    hundred, thousand = {"proposal_nums": (1, 10, 100)}, {"proposal_nums": (100, 300, 1000)}
    assert figures(path, content, found, **hundred)["AP50"] == 0
    assert figures(path, content, found, **thousand)["AP50"] > 0
    assert rounded(figures(path, content, found, **hundred)) == figures_of_mmdet(path, content, found, **hundred)


def test_average_precision_of_more_than_a_hundred_detections_is_that_of_mmdet(write):
    path, content, found = crowded(write)
    assert rounded(figures(path, content, found)) == figures_of_mmdet(path, content, found)


def measured(path: str, content: dict, found: dict, **settings) -> tuple[float, torch.Tensor | None]:
    """Return AP and its pseudo-values."""
    values, scores = process(empty_metric(path, content, **settings), found).measure()
    return values["AP"], scores


def precision_on(path: str, content: dict, found: dict, images: Sequence[int]) -> float:
    """Return AP on some of the images, by their positions."""
    from pdiff_plugins.detection.jackknife import precision_of

    metric = process(empty_metric(path, content), found)
    return precision_of(metric.evaluated(metric.results), images, metric.heeded())


def renumbered(content: dict, found: dict, images: Sequence[int]) -> tuple[dict, dict]:
    """Return annotations and detections of some of the images, by their positions, under new ids."""
    rows, shown, seen = [], [], {}
    for number, position in enumerate(images):
        image = content["images"][position]
        shown.append({**image, "id": 1000 + number})
        own = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        rows += [{**row, "id": len(rows) + n, "image_id": 1000 + number} for n, row in enumerate(own, 1)]
        seen[1000 + number] = found[image["id"]]
    return {**content, "images": shown, "annotations": rows}, seen


@pytest.mark.parametrize("images", [[0, 2, 3, 7], [5], [1, 1, 4, 4, 4, 6]])
def test_precision_on_some_images_is_that_of_data_with_these_alone(write, images):
    content = annotations()
    found = detections(content)
    cut, seen = renumbered(content, found, images)
    expected = figures(write(cut, "cut.json"), cut, seen)["AP"]
    assert precision_on(write(content), content, found, images) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("images", "groups"), [(8, 8), (20, 20), (50, 20)])
def test_mean_of_the_pseudo_values_is_the_precision(write, images, groups):
    content = annotations(images, objects=5)
    average, scores = measured(write(content), content, detections(content))
    assert scores.shape == (groups,)
    assert scores.dtype == torch.float32
    assert scores.double().mean().item() == pytest.approx(average, abs=1e-6)


def test_pseudo_value_is_what_the_precision_owes_to_every_twentieth_image(write):
    content = annotations(images=50, objects=5)
    path, found = write(content), detections(content)
    _, scores = measured(path, content, found)
    for group in (0, 7):
        without = precision_on(path, content, found, [n for n in range(50) if n % 20 != group])
        others = precision_on(path, content, found, [n for n in range(50) if n % 20 != group + 1])
        difference = (scores[group + 1] - scores[group]).item()
        assert difference == pytest.approx(19 * (without - others), abs=1e-6)


def test_spread_of_the_pseudo_values_is_the_noise_of_a_bootstrap_over_images(write):
    from pdiff_plugins.detection.jackknife import precision_of

    ratios = []
    for seed in range(6):
        content = annotations(images=100, objects=4, seed=seed)
        metric = process(empty_metric(write(content), content), detections(content, seed))
        evaluation, rng = metric.evaluated(metric.results), np.random.default_rng(seed)
        drawn = [precision_of(evaluation, rng.integers(100, size=100).tolist(), 100) for _ in range(200)]
        _, scores = metric.measure()
        ratios.append(scores.std().item() / math.sqrt(len(scores)) / np.std(drawn))
    # Twenty groups tell a standard error to 16 % (one standard deviation), so that only some sets together agree.
    assert np.sqrt(np.mean(np.square(ratios))) == pytest.approx(1, abs=0.25)
    assert max(ratios) < 1.6
    assert min(ratios) > 0.5


def test_candidate_that_sees_nothing_owes_nothing_to_any_image(write):
    content = annotations()
    average, scores = measured(write(content), content, nothing(content))
    assert average == 0
    assert scores.tolist() == [0] * 8


def test_class_whose_objects_are_all_in_one_group_is_no_part_of_the_precision_without_it(write):
    content = annotations()
    rows = [row for row in content["annotations"] if row["category_id"] != 9 or row["image_id"] == 10]
    content = {**content, "annotations": rows}
    path, found = write(content), detections(content)
    whole = figures(path, content, found)
    assert "AP/mouse" in whole
    cut, seen = renumbered(content, found, range(1, 8))
    without = figures(write(cut, "cut.json"), cut, seen)
    assert "AP/mouse" not in without
    assert precision_on(path, content, found, range(1, 8)) == pytest.approx(without["AP"])
    assert measured(path, content, found)[1].isfinite().all()


def test_precision_that_hangs_on_one_image_has_no_pseudo_values(write):
    content = annotations()
    alone = {**content, "annotations": [row for row in content["annotations"] if row["image_id"] == 12]}
    assert measured(write(alone), alone, detections(alone))[1] is None
    path, content, found = crowded(write)
    assert measured(path, content, found)[1] is None


def test_pseudo_values_heed_as_many_detections_as_the_precision(write):
    _, content, found = crowded(write)
    twice, seen = renumbered(content, found, [0, 0])
    path = write(twice, "twice.json")
    for numbers in ((1, 10, 100), (100, 300, 1000), (150,)):
        average, scores = measured(path, twice, seen, proposal_nums=numbers)
        assert scores.tolist() == pytest.approx([average] * 2)
