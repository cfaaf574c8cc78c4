"""Which stock configs of mmdet and mmseg run? Each on a few scenes of digits: a base training of two steps, two
checkpoints of the selection, both of them evaluated, and the training loss of the first, with gradients, three times at
once: is it what the collection had for the second?

Each config runs in a process of its own. What is changed of a config is what `options` returns: data, batch size, sizes
in pixels, length; heads, losses, augmentations, hooks and optimiser stay its own.

    python tools/bench/openmmlab.py -o stock.md                  # all of them
    python tools/bench/openmmlab.py --only yolox --show          # the section `task` that is run
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pdiff_plugins.openmmlab.libraries import LIBRARIES, open_config
from pdiff_plugins.openmmlab.metainfo import plain_datasets
from pdiff_plugins.openmmlab.scenes import CLASSES

from pdiff.run.behaviour import Behaviour
from pdiff.run.config import load_config
from pdiff.run.directory import RunDirectory
from pdiff.run.measuring import evaluate_split
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError, command, known
from pdiff.stages.pipeline import run_pipeline

SIDE = 96  # pixels of a scene, and whatever a config enlarges or crops it to
SCENES = {"train": 8, "select": 2, "test": 2, "size": SIDE}
SIZES = ("scale", "scales", "img_scale", "crop_size", "size", "stride", "random_size_range", "border")
LOADERS = {"train_dataloader": "train", "val_dataloader": "select", "test_dataloader": "test"}
PLUGINS = {"mmdet": "detection", "mmseg": "segmentation"}
LONGEST = 150  # characters of the line that a config ends with
HEAD = "| family | config | selection | P | result | seconds |"


@dataclass(frozen=True)
class Stock:
    """A config that a library ships.

    Attributes:
        config: as `task.model.config` takes it.
        select: what is regenerated.
        more: further options.
    """

    config: str
    select: str = "head"
    more: Mapping[str, Any] | None = None


STOCK = {
    "RetinaNet": Stock("mmdet::retinanet/retinanet_r18_fpn_1x_coco"),
    "FCOS": Stock("mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco"),
    "ATSS": Stock("mmdet::atss/atss_r50_fpn_1x_coco"),
    "RTMDet": Stock("mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco"),
    "YOLOX": Stock("mmdet::yolox/yolox_tiny_8xb8-300e_coco"),
    "Faster R-CNN": Stock("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco", "module(roi_head.bbox_head.fc_cls)"),
    "Cascade R-CNN": Stock("mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco", "regex(bbox_head.*fc_(cls|reg))"),
    "Mask R-CNN": Stock("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco", "regex(roi_head.*(fc_cls|conv_logits))"),
    "DETR": Stock("mmdet::detr/detr_r50_8xb2-150e_coco"),
    "DINO": Stock("mmdet::dino/dino-4scale_r50_8xb2-12e_coco", "last_norms(2)", {"model.num_queries": 100}),
    "Deformable DETR": Stock("mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco"),
    "Conditional DETR": Stock("mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco"),
    "YOLOv3": Stock("mmdet::yolo/yolov3_d53_8xb8-320-273e_coco"),
    "CenterNet": Stock("mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco"),
    "RTMDet-Ins": Stock("mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco"),
    "YOLACT": Stock("mmdet::yolact/yolact_r50_1xb8-55e_coco"),
    "Mask2Former, instances": Stock("mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco"),
    "SSD": Stock("mmdet::ssd/ssd300_coco"),
    "CARAFE": Stock("mmdet::carafe/faster-rcnn_r50_fpn-carafe_1x_coco"),
    "ConvNeXt": Stock("mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco"),
    "FCN": Stock("mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024"),
    "PSPNet": Stock("mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024", "last_norms(2)"),
    "DeepLabV3+": Stock("mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024"),
    "UperNet": Stock("mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512", "module(decode_head.conv_seg)"),
    "SegFormer": Stock("mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512"),
    "Mask2Former": Stock("mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512", "last_norms(2)"),
    "BiSeNetV2": Stock("mmseg::bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024"),
    "SegNeXt": Stock("mmseg::segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512", "last_norms(2)"),
    "OCRNet": Stock("mmseg::ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024"),
    "STDC": Stock("mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024"),
    "PSANet": Stock("mmseg::psanet/psanet_r50-d8_4xb2-40k_cityscapes-512x1024"),
}


def resized(value: Any) -> Any:
    """Return a size, a list of sizes, or a side in pixels, with no side above `SIDE`."""
    if isinstance(value, list | tuple):
        return [resized(item) for item in value]
    return max(min(value, SIDE), -SIDE // 2) if type(value) is int else value  # a negative border cuts a mosaic


def sides(value: Any) -> list[Any]:
    """Return every number in a size, or in a list of sizes, in a row."""
    return [side for item in value for side in sides(item)] if isinstance(value, list | tuple) else [value]


def sizes(section: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the new value of every size in pixels in nested sections and lists."""
    for key, value in section.items() if isinstance(section, Mapping) else enumerate(section):
        if key in SIZES and sides(value) != sides(resized(value)):
            yield f"{where}.{key}", resized(value)
        elif isinstance(value, Mapping | list | tuple):
            yield from sizes(value, f"{where}.{key}")


def data_set(library: str, split: str, reduce: bool) -> dict[str, Any]:
    """Return what a data set of the library says of a split of the scenes."""
    if library == "mmdet":
        return {"ann_file": f"{split}.json", "data_prefix": {"img": f"{split}/"}}
    prefix = {"img_path": split, "seg_map_path": f"{split}_labels"}
    suffixes = {"img_suffix": ".png", "seg_map_suffix": ".png"}
    return {"type": "BaseSegDataset", "data_prefix": prefix, **suffixes, "reduce_zero_label": reduce}


def reduces(pipeline: Any) -> bool:
    """Say whether a pipeline takes label 0 for what is ignored, as those of ADE20K do."""
    return any(step.get("reduce_zero_label") for step in pipeline)


def options(library: str, config: Any) -> dict[str, Any]:
    """Return `task.model.options` for a few scenes on a CPU."""
    found: dict[str, Any] = {}
    for key, split in LOADERS.items():
        found |= {f"{key}.batch_size": 2, f"{key}.num_workers": 0, f"{key}.persistent_workers": False}
        place, inner = f"{key}.dataset", config[key].dataset
        while "dataset" in inner:
            place, inner = f"{place}.dataset", inner.dataset
        reduce = reduces(next(plain_datasets(inner)).pipeline)
        found |= {f"{place}.{name}": value for name, value in data_set(library, split, reduce).items()}
    for key in (*LOADERS, "custom_hooks", "model.data_preprocessor", "model.test_cfg"):
        found |= sizes(config.get(key) or (), key) if "." not in key else ()
    for key in ("data_preprocessor", "test_cfg"):
        found |= sizes(config.model.get(key) or {}, f"model.{key}")
    length = next(key for key in ("max_epochs", "max_iters") if key in config.train_cfg)
    return found | {f"train_cfg.{length}": 1 if length == "max_epochs" else 2}


def section(stock: Stock) -> dict[str, Any]:
    """Return the section `task` of a run."""
    name = stock.config.partition(":")[0]
    library = LIBRARIES[name]
    library.load()
    config = open_config(library, stock.config)
    own = {**options(name, config), **(stock.more or {})}
    reduced = reduces(next(plain_datasets(config.train_dataloader.dataset)).pipeline)
    classes = [*CLASSES] if name == "mmdet" or reduced else ["background", *CLASSES]
    model = {"config": stock.config, "classes": classes, "pretrained": False, "options": own}
    return {"model": model, "data": {"scenes": SCENES, "select": {"source": "val"}}}


def loss(run: Run) -> str:
    """Return what is wrong with the loss that the plugin tells of the first checkpoint; nothing where it is right."""
    vectors = run.population.tensor()[:1].repeat(3, 1).requires_grad_(True)
    expected = run.population.provenance[1]["loss"]
    try:
        losses = Behaviour(run)(vectors, torch.arange(3), 1)
        losses.sum().backward()
    except PdiffError as error:
        return str(error)
    if losses.tolist() == [expected] * 3:
        return ""
    return f"{max(losses.tolist(), key=lambda own: abs(own - expected)):.6g} for {expected:.6g}"


def measure(stock: Stock, folder: Path) -> dict[str, Any]:
    """Return what a config gives: P, its loss, and the seconds of the collection, of the evaluation and of the loss."""
    finetune = {"warmup": 0, "steps": 2, "optimizer": {"type": "AdamW", "lr": 1e-4}}
    own = {"seed": 0, "device": "cpu", "select": stock.select, "task": section(stock)}
    own["collect"] = {"branches": 1, "finetune": finetune}
    config = load_config(PLUGINS[stock.config.partition(":")[0]], None, {}, own)
    start = time.monotonic()
    run_pipeline(config, RunDirectory(folder), stages=["collect"], gates=False)
    run, collected = Run(config, RunDirectory(folder)), time.monotonic()
    found = evaluate_split(run, "trained", run.candidates(run.population.tensor()), "select")
    assert len(found) == 2
    evaluated = time.monotonic()
    told = loss(run)
    seconds = [collected - start, evaluated - collected, time.monotonic() - evaluated]
    return {"P": run.layout.size, "loss": told, "seconds": seconds}


def run_alone(name: str, limit: float) -> dict[str, Any]:
    """Return what a config gives in a process of its own, or, as `error`, the line that it ends with."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, __file__, "--only", name, "--here", folder]
        process = subprocess.Popen(arguments, stdout=-1, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return {"error": f"not done in {limit:.0f} s"}
    last = (output.strip().splitlines() or ["nothing was said"])[-1]
    return json.loads(last) if process.returncode == 0 else {"error": last.removeprefix("error: ")}


def row(name: str, stock: Stock, found: Mapping[str, Any]) -> str:
    """Return a config's row of the table."""
    size = f"{found['P']:,}" if "P" in found else ""
    seconds = " + ".join(f"{each:.0f}" for each in found.get("seconds", ()))
    result = found.get("error", f"runs; its loss: {found['loss']}" if found.get("loss") else "runs")
    result = textwrap.shorten(result, LONGEST, placeholder=" ...")
    cells = [name, f"`{stock.config}`", f"`{stock.select}`", size, result, seconds]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def chosen(names: list[str] | None) -> dict[str, Stock]:
    """Return the configs of some families, in whatever case they are written; all for None."""
    families = {name.lower(): name for name in STOCK}
    for name in names or ():
        if name.lower() not in families:
            raise PdiffError(f"--only: got {name!r}. {known(name, STOCK)}")
    return {families[name.lower()]: STOCK[families[name.lower()]] for name in names or STOCK}


@command()
def main() -> int:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="families (default: all)")
    parser.add_argument("--limit", type=float, default=600, help="seconds for one config (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the families and their configs")
    parser.add_argument("--show", action="store_true", help="print the section `task` of each instead of running it")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)  # the run directory of one, in this process
    parser.add_argument("-o", "--output", type=Path, help="file for the table, too")
    arguments = parser.parse_args()
    lines = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for name, stock in chosen(arguments.only).items():
        if arguments.list:
            print(f"{name}: {stock.config}, {stock.select}")
        elif arguments.show:
            print(yaml.safe_dump({"task": section(stock)}, sort_keys=False, width=120))
        elif arguments.here:
            print(json.dumps(measure(stock, arguments.here)))
        else:
            lines.append(row(name, stock, run_alone(name, arguments.limit)))
            print(*lines[len(lines) - 1 if len(lines) > 3 else 0 :], sep="\n", flush=True)
            if arguments.output:
                arguments.output.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
