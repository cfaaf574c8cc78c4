"""Packaging of pdiff: the core as `pdiff`, the folder `plugins/` as `pdiff_plugins`."""

from pathlib import Path

from setuptools import find_packages, setup

CORE = [
    "torch>=2.4",
    "onedl-mmengine>=0.10.12",
    "opencv-python-headless",  # mmengine imports cv2 and does not require it
    "diffusers>=0.30",
    "pluggy>=1.5",
    "pyyaml",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",  # comes with scikit-learn, and runs a sweep in several processes
    "matplotlib",
    "jinja2",
    "tensorboard",
    "rich",
]
EXTRAS = {
    "classification": ["torchvision", "timm>=1.0", "torchmetrics"],
    "detection": ["torchvision", "onedl-mmcv", "onedl-mmdetection", "faster-coco-eval"],
    "segmentation": ["torchvision", "onedl-mmcv", "onedl-mmsegmentation"],
    "generation": ["torchvision", "torchmetrics", "torch-fidelity"],
    "examples": ["peft", "transformers"],
    "test": ["pytest", "hypothesis", "peft", "pytest-xdist", "ruff~=0.17.0", "build", "setuptools>=64"],
}
EXTRAS["all"] = sorted({r for name, group in EXTRAS.items() if name not in ("examples", "test") for r in group})

PLUGINS = ["classification", "detection", "generation", "segmentation"]
PLUGIN_PACKAGES = find_packages("plugins")

TEMPLATE = ["*.md", "*.toml", "*.py", "NAME/*.py", "NAME/*.yaml"]

setup(
    name="pdiff",
    version="0.1.0",
    description="Generate neural-network parameters with latent diffusion, for any task by plugin",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=[
        *find_packages(include=["pdiff", "pdiff.*"]),
        "pdiff_plugins",
        *(f"pdiff_plugins.{name}" for name in PLUGIN_PACKAGES),
    ],
    package_dir={"pdiff_plugins": "plugins"},
    package_data={
        "pdiff": [
            *("run/*.yaml", "engine/*.yaml", "engine/presets/*.yaml", "report/templates/*.html"),
            *(f"scaffold/template/{f}" for f in TEMPLATE),
        ],
        "pdiff_plugins": ["*/*.yaml", "*/configs/*.py"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["pdiff = pdiff.__main__:main"],
        "pdiff.plugins": [f"{name} = pdiff_plugins.{name}" for name in PLUGINS],
    },
)
