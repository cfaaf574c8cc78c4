#!/bin/sh
# Run a small detection task with OpenMMLab's original distributions (mmengine 0.10.7, mmcv-lite 2.1.0, mmdet 3.3.0)
# in place of the OneDL builds that setup.py installs. Makes an environment of its own.
#
#   sh tools/bench/original_openmmlab.sh FOLDER [PYTHON]
set -eu
folder=$1
python=${2:-python3}
cd "$(dirname "$0")/../.."
"$python" -m venv "$folder/venv"
bin="$folder/venv/bin"
# To build mmcv-lite: its setup.py asks setuptools for pkg_resources, which later versions lack.
"$bin/pip" install --quiet 'setuptools<80' wheel
"$bin/pip" install --quiet --no-build-isolation mmcv-lite==2.1.0 mmengine==0.10.7 mmdet==3.3.0 torch torchvision \
    faster-coco-eval diffusers pluggy pyyaml safetensors scipy scikit-learn matplotlib rich
"$bin/pip" install --quiet --force-reinstall --no-deps opencv-python-headless
"$bin/pip" install --quiet --no-deps --editable .
"$bin/pip" list | grep -i -E '^(mm|onedl|torch|numpy|setuptools)' || true
"$bin/python" tools/run.py --plugin detection --work-dir "$folder/run" --overwrite --cfg-options \
    task.data.scenes.train=100 task.data.scenes.select=20 task.data.scenes.test=30 task.data.scenes.cache="$folder/cache" \
    task.model.options.train_cfg.max_iters=50 collect.finetune.steps=20 generate.num=5 \
    evaluate.sources.soup16.num=5 evaluate.sources.gaussian.num=5 evaluate.sources.noise05.num=5 evaluate.sources.noise15.num=5
"$bin/python" tools/export.py "$folder/run" -o "$folder/detector.pth"
"$bin/python" - "$folder" <<'PYTHON'
import sys

from pdiff_plugins.openmmlab.libraries import MMDET

MMDET.load()
import mmcv, mmdet, mmengine, numpy, torch
from mmdet.apis import inference_detector, init_detector

detector = init_detector(f"{sys.argv[1]}/detector.py", f"{sys.argv[1]}/detector.pth", device="cpu")
found = inference_detector(detector, numpy.zeros((128, 128, 3), numpy.uint8))
print("mmdet", mmdet.__version__, "mmengine", mmengine.__version__, "mmcv", mmcv.__version__, "torch", torch.__version__)
print("exported detector loaded and run:", len(found.pred_instances), "detections on a black image")
PYTHON
