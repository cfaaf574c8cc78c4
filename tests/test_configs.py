"""The configs that come with pdiff: each resolves, fits the code that reads it, and says what was published."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from pdiff.engine.registries import AUTOENCODERS, DENOISERS
from pdiff.engine.settings import FOLDER
from pdiff.run.config import load_config
from pdiff.runtime.registry import build
from pdiff.runtime.settings import read_yaml
from pdiff.sweep.expanding import settings_of
from pdiff.sweep.reading import read_sweep
from pdiff.task.plugins import list_plugins
from pdiff.weights.select import select

ROOT = Path(__file__).parents[1]
PLUGINS = ROOT / "plugins"
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path.parent.name not in ("_base_", "sweeps")]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
EVERY = [*sorted(PLUGINS.glob("*/default.yaml")), *CONFIGS]
CLASSIFICATION = [path for path in EVERY if path.parent.name == "classification"]
ZOOS = [path for path in CLASSIFICATION if path.stem.startswith("zoo_")]
GENERATION = [path for path in EVERY if path.parent.name == "generation"]
OPENMMLAB = [path for path in EVERY if path.parent.name in ("detection", "segmentation")]

# The sizes of the selections as published.
SIZES = {
    "default": 2048,
    "resnet18_digits_norms_paper": 2048,
    "resnet18_cifar100_norms": 2048,
    "resnet50_cifar100_norms": 5120,
    "vit_tiny_cifar100_norms": 768,
    "vit_base_cifar100_norms": 3072,
    "convnext_tiny_cifar100_norms": 3072,
    "convnext_base_cifar100_norms": 4096,
    "convnet_mini_cifar10_all": 24_262,
    "convnet_mini_cifar10_all_paper": 24_262,
    "mlp_mini_cifar10_all": 66_970,
    "resnet_mini_cifar10_all": 25_138,
    "vit_mini_cifar10_all": 80_714,
    "convnext_mini_cifar10_all": 74_970,
    "resnet18_cifar10_all": 11_181_642,
    "subsets_digits": 2146,
    "subsets_digits_behaviour": 2146,
    "subsets_digits_ball": 2146,
    "subsets_digits_size": 2146,
    "subsets_digits_three_inits": 2146,
    "subsets_digits_own_inits": 2146,
    "subsets_cifar10": 66_834,
    "rotation_digits": 2410,
    "rotation_digits_prompt": 2410,
    "uncertainty_digits": 2048,
    "zoo_digits": 1210,
    "zoo_uncertainty_digits": 1176,
    "zoo_convnet_digits": 23_478,
    "zoo_resnet_digits": 156_880,
}

SIZES_OPENMMLAB = {
    "detection/default": 82_641,
    "detection/fcos_r18_bccd_predictors": 4_616,
    "detection/faster_rcnn_r50_bccd_head": 16_400,
    "detection/faster_rcnn_r50_coco_head": 411_025,
    "detection/fcos_r50_coco_head": 195_925,
    "detection/subsets_digits": 8_655,
    "detection/subsets_bccd": 4_616,
    "segmentation/default": 37_707,
    "segmentation/fcn_r18_camvid_head": 37_707,
    "segmentation/fcn_r50_voc_norm": 4_096,
    "segmentation/upernet_vit_b_ade20k_norms": 3_072,
    "segmentation/subsets_digits": 715,
}

# Of the networks that are trained from scratch; the other one's is 3,459, from the hub.
SIZES_GENERATION = {"default": 217, "unet_small_cifar10_conv_out": 867, "subsets_digits": 2784}


# The configs whose networks are made for conditions, and how many of these there are.
CONDITIONAL = {
    "subsets_digits": 1022,
    "subsets_digits_behaviour": 1022,
    "subsets_digits_ball": 1022,
    "subsets_digits_size": 1022,
    "subsets_digits_three_inits": 1022,
    "subsets_digits_own_inits": 1022,
    "subsets_cifar10": 510,
    "rotation_digits": 361,
    "rotation_digits_prompt": 361,
}

COLUMNS = ("network", "data", "selection", "P", "N", "needs", "cost")


def table() -> dict[str, dict[str, str]]:
    """Return the rows of the table of configs by the file's path."""
    page = (ROOT / "docs" / "configs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\S+)`\]\(\.\./\1\) \| (.*) \|$", page, re.MULTILINE)
    return {path: dict(zip(COLUMNS, cells.split(" | "), strict=False)) for path, cells in rows}


def published_size(path: Path) -> int:
    """Return the size of a config's selection."""
    name = f"{path.parent.name}/{path.stem}"
    if path in OPENMMLAB:
        return SIZES_OPENMMLAB[name]
    return {**SIZES_GENERATION, "unet_cifar10_conv_out": 3459}[path.stem] if path in GENERATION else SIZES[path.stem]


def load(path: Path):
    """Return a resolved config."""
    return load_config(None, str(path), {}, {})


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_setting_of_a_sweep_resolves(path):
    sweep = read_sweep(path)
    sweep.check()
    assert settings_of(sweep)


def number_of(path: Path, config) -> int:
    """Return how many checkpoints a config collects."""
    if "conditions" in config.collect:
        return config.collect.conditions.subsets
    if path.stem in CONDITIONAL:
        inits = config.collect.get("inits", 1)
        return CONDITIONAL[path.stem] * (1 if inits == "each" else inits)
    if path in ZOOS:
        return config.collect.seeds * config.collect.networks.snapshots
    finetune = config.collect.finetune
    return finetune.steps // finetune.get("every", 1) * config.collect.get("branches", 1)


def fine_tuned(paths) -> list[Path]:
    """Return the configs whose networks are fine-tuned from one: made for nothing but the data, and no zoo."""
    return [path for path in paths if not path.stem.startswith(("subsets_", "rotation_", "zoo_"))]


def names(paths) -> list[str]:
    """Return what the cases of a test are called."""
    return [f"{path.parent.name}/{path.stem}" for path in paths]


def marked_where(words: str, paths) -> list:
    """Return paths as the cases of a test, slow where the name has these words: a large network is built."""
    return [pytest.param(path, marks=[pytest.mark.slow] * (words in path.stem)) for path in paths]


def settings(function) -> set[str]:
    """Return the names of a function's arguments."""
    return set(inspect.signature(function).parameters)


def check_augmentations(section) -> None:
    from pdiff_plugins.images.augment import build_augmentations

    build_augmentations(section.get("augment", ()), "augment")(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("path", EVERY, ids=names(EVERY))
def test_config_resolves_and_is_for_a_plugin_that_exists(path):
    config = load(path)
    assert config.plugin in {plugin.name for plugin in list_plugins()}
    assert config.plugin == path.parent.name
    assert config.select


def test_table_has_a_row_for_every_file_and_a_file_for_every_row():
    files = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "configs").rglob("*.py"), *PLUGINS.glob("*/default.yaml")]
    assert sorted(table()) == sorted(str(path.relative_to(ROOT)) for path in files)


@pytest.mark.parametrize("path", EVERY, ids=names(EVERY))
def test_table_states_what_the_config_says(path):
    row, config = table()[str(path.relative_to(ROOT))], load(path)
    assert row["selection"] == f"`{config.select}`"
    assert row["P"] == f"{published_size(path):,}"
    assert int(row["N"].replace(",", "")) == number_of(path, config)
    assert set(row) == set(COLUMNS)


def test_every_config_of_classification_has_a_published_size():
    assert sorted(SIZES) == sorted(path.stem for path in CLASSIFICATION)


@pytest.mark.parametrize("path", CLASSIFICATION, ids=names(CLASSIFICATION))
def test_selection_has_the_published_size(path):
    from pdiff_plugins.classification.conditions import build_kind
    from pdiff_plugins.classification.networks import build_network
    from pdiff_plugins.images.data import Split

    task = load(path).task
    classes = 100 if task.data.get("name") == "CIFAR100" else len(task.data.get("classes", range(10)))
    classes = (build_kind(task.conditions, 0).outputs if path.stem in CONDITIONAL else None) or classes
    channels = 1 if task.data.type == "digits" else 3
    split = Split(torch.zeros(1, channels, 1, 1), torch.zeros(1), classes, task.data.size, 1, torch.device("cpu"))
    network = {key: value for key, value in task.network.items() if key != "pretrained"}
    with torch.device("meta"):
        model = build_network(network, split)
    state = model.state_dict()
    assert sum(state[name].numel() for name in select(model, load(path).select)) == SIZES[path.stem]


@pytest.mark.parametrize("path", fine_tuned(CLASSIFICATION), ids=names(fine_tuned(CLASSIFICATION)))
def test_every_key_is_an_argument_of_what_reads_it(path):
    from pdiff_plugins.classification import build_task
    from pdiff_plugins.images.collection import finetune_selection, snapshots, train_base
    from pdiff_plugins.images.data import DATASETS

    config = load(path)
    assert set(config.task) <= settings(build_task) - {"seed", "device"}
    assert set(config.task.data) - {"type"} <= settings(DATASETS.get(config.task.data.type))
    assert set(config.collect) <= settings(snapshots) - {"task", "names", "seed", "network", "objective", "state"}
    assert set(config.collect.train) <= settings(train_base) - {"task", "seed", "number", "objective", "state"}
    own = {"task", "names", "seed", "place", "base", "objective", "state"}
    assert set(config.collect.finetune) <= settings(finetune_selection) - own
    check_augmentations(config.collect.train)
    check_augmentations(config.collect.finetune)


@pytest.mark.parametrize("path", [p for p in CLASSIFICATION if p.stem in CONDITIONAL], ids=lambda path: path.stem)
def test_conditional_config_says_what_networks_are_for_and_how_they_are_trained(path):
    from pdiff_plugins.classification import build_task
    from pdiff_plugins.classification.conditions import build_kind
    from pdiff_plugins.classification.many import snapshots_of_many
    from pdiff_plugins.classification.together import train_together
    from pdiff_plugins.images.collection import train_base
    from pdiff_plugins.images.data import DATASETS

    config = load(path)
    assert len(build_kind(config.task.conditions, config.seed)) == CONDITIONAL[path.stem]
    assert set(config.task) <= settings(build_task) - {"seed", "device"}
    assert set(config.task.data) - {"type"} <= settings(DATASETS.get(config.task.data.type))
    assert set(config.collect) <= settings(snapshots_of_many) - {"task", "names", "seed", "network", "state", "branch"}
    own = {"model", "data", "conditions", "begins", "seed", "first"}
    assert set(config.collect.networks) <= settings(train_together) - own
    check_augmentations(config.collect.networks)
    assert (config.collect.get("start") == "base") == ("train" in config.collect)
    if "train" in config.collect:
        given = {"task", "seed", "number", "objective", "state"}
        assert set(config.collect.train) <= settings(train_base) - given


@pytest.mark.parametrize("path", ZOOS, ids=lambda path: path.stem)
def test_zoo_says_how_its_networks_are_trained_and_that_they_are_many(path):
    from pdiff_plugins.classification import build_task
    from pdiff_plugins.classification.zoo import snapshots_of_zoo, steps_of, train_apart
    from pdiff_plugins.images.data import DATASETS

    config = load(path)
    assert set(config.task) <= settings(build_task) - {"seed", "device"}
    assert set(config.task.data) - {"type"} <= settings(DATASETS.get(config.task.data.type))
    assert set(config.collect) <= settings(snapshots_of_zoo) - {"task", "names", "seed", "network", "state", "branch"}
    assert set(config.collect.networks) <= settings(train_apart) - {"model", "data", "begins", "numbers", "seed"}
    check_augmentations(config.collect.networks)
    assert config.collect.seeds >= 20
    assert steps_of(*(config.collect.networks[name] for name in ("steps", "snapshots", "every")))
    assert config.fit.canonical == "permutation+scale"


@pytest.mark.parametrize("path", GENERATION, ids=names(GENERATION))
def test_every_key_of_a_generation_config_is_an_argument_of_what_reads_it(path):
    from pdiff_plugins.generation.features import FEATURES
    from pdiff_plugins.generation.many import network_settings, snapshots_of_sets
    from pdiff_plugins.generation.network import NETWORKS
    from pdiff_plugins.generation.sampling import Sampler
    from pdiff_plugins.generation.task import build_task
    from pdiff_plugins.images.collection import finetune_selection, snapshots, train_base
    from pdiff_plugins.images.data import DATASETS

    config = load(path)
    assert set(config.task) <= settings(build_task) - {"seed", "device", "folder"}
    for registry, section in ((NETWORKS, "network"), (DATASETS, "data"), (FEATURES, "features")):
        assert set(config.task[section]) - {"type"} <= settings(registry.get(config.task[section].type))
    assert set(config.task.sampler) <= settings(Sampler)
    conditional = "conditions" in config.collect
    part, own = ("networks", network_settings) if conditional else ("finetune", finetune_selection)
    assert set(config.collect) <= settings(snapshots_of_sets if conditional else snapshots)
    assert set(config.collect.train) <= settings(train_base)
    assert set(config.collect[part]) <= settings(own)
    check_augmentations(config.collect.train)
    check_augmentations(config.collect[part])
    check_augmentations(config.task.features)


@pytest.mark.parametrize("path", [p for p in GENERATION if p.stem in SIZES_GENERATION], ids=lambda path: path.stem)
def test_selection_of_a_generator_has_its_size(path):
    from pdiff_plugins.generation.network import build_network
    from pdiff_plugins.images.data import Split

    task = load(path).task
    channels = 1 if task.data.type == "digits" else 3
    split = Split(torch.zeros(1, channels, 1, 1), torch.zeros(1), 10, task.data.size, 1, torch.device("cpu"))
    model = build_network(task.network, task.noise, split)
    chosen = select(model, load(path).select, ("conv_out",))
    assert sum(model.state_dict()[name].numel() for name in chosen) == SIZES_GENERATION[path.stem]


@pytest.mark.parametrize("path", marked_where("vit_b", OPENMMLAB), ids=names(OPENMMLAB))
def test_network_of_an_openmmlab_config_is_built_and_its_selection_has_its_size(path, monkeypatch):
    pytest.importorskip("mmdet")
    from pdiff_plugins import detection, segmentation
    from pdiff_plugins.openmmlab.libraries import MMDET, MMSEG, open_config

    monkeypatch.chdir(ROOT)  # the configs name files of the checkout
    config = load(path)
    library, heads = (MMDET, detection.HEADS) if config.plugin == "detection" else (MMSEG, segmentation.HEADS)
    library.load()
    # mmseg's vision transformer computes its rates of dropped paths from tensors' values, which meta tensors lack.
    with library.scope(), torch.device("cpu" if "vit" in path.stem else "meta"):
        model = library.registry("MODELS").build(open_config(library, **config.task.model).model)
    head = [name for name in heads if name in dict(model.named_modules())][:1]
    chosen = select(model, config.select, head)
    size = sum(model.state_dict()[name].numel() for name in chosen)
    assert size == SIZES_OPENMMLAB[f"{path.parent.name}/{path.stem}"]


@pytest.mark.parametrize("path", OPENMMLAB, ids=names(OPENMMLAB))
def test_every_key_of_an_openmmlab_config_is_an_argument_of_what_reads_it(path):
    pytest.importorskip("mmdet")
    from pdiff_plugins import detection, segmentation
    from pdiff_plugins.openmmlab.collection import finetune_settings, snapshots, train_base
    from pdiff_plugins.openmmlab.data import build_splits
    from pdiff_plugins.openmmlab.libraries import open_config
    from pdiff_plugins.openmmlab.many import network_settings, snapshots_of_many

    config = load(path)
    build_task = {"detection": detection.detection_task, "segmentation": segmentation.segmentation_task}[config.plugin]
    assert set(config.task) <= settings(build_task) - {"seed", "device"}
    assert set(config.task.model) <= settings(open_config) - {"library"}
    assert set(config.task.data) <= settings(build_splits) - {"library", "config", "seed"}
    conditional = "conditions" in config.collect
    part, own = ("networks", network_settings) if conditional else ("finetune", finetune_settings)
    assert set(config.collect) <= settings(snapshots_of_many if conditional else snapshots)
    assert set(config.collect.get("train", {})) <= settings(train_base)
    assert set(config.collect[part]) <= settings(own)


@pytest.mark.parametrize("path", [p for p in CLASSIFICATION if "cifar100" in p.stem], ids=lambda path: path.stem)
def test_normalisation_layers_are_collected_as_published(path):
    config = load(path)
    finetune = config.collect.finetune
    assert config.select == "last_norms(2)"
    assert config.collect.branches * finetune.steps == 300
    assert (finetune.batch_size, finetune.lr, finetune.weight_decay) == (128, 0.03, 5e-4)
    assert (finetune.mode, finetune.get("every", 1), config.collect.get("seeds", 1)) == ("eval", 1, 1)


@pytest.mark.parametrize("path", fine_tuned(EVERY), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_config_has_branches_enough_to_hold_some_out_and_to_test_for_copies(path):
    assert load(path).collect.branches >= 5


@pytest.mark.parametrize("path", [p for p in CLASSIFICATION if "mini" in p.stem], ids=lambda path: path.stem)
def test_whole_networks_are_collected_as_published(path):
    config = load(path)
    train, finetune = config.collect.train, config.collect.finetune
    assert (config.select, config.task.data.size) == ("all", 64)
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay) == (50, 128, 5e-3, 5e-4)
    assert (config.collect.branches * finetune.steps, finetune.lr) == (300, 1e-3)
    assert [step.type for step in train.augment] == ["resized_crop", "flip"]


def test_paper_preset_has_the_published_figures():
    training = {"batch_size": 50, "weight_decay": 0.0, "schedule": "cosine", "ema": 0.0}
    training |= {"amp": False, "compile": "none"}
    assert read_yaml(FOLDER / "paper.yaml") == {
        "scaling": {"type": "per_tensor"},
        "autoencoder": {
            "type": "conv", "latent": 128, "encoder": [64, 128, 256, 256, 32], "decoder": [256, 256, 128, 64, 64],
            "vector_noise": 0.001, "latent_noise": 0.1,
        },
        "autoencoder_training": {"steps": 500, "lr": 2e-5, **training},
        "whiten": False,
        "generator": {"type": "diffusion"},
        "denoiser": {"type": "conv", "channels": [64, 128, 256, 512, 256, 128, 64], "frequencies": 256},
        "noise_schedule": {
            "timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear", "prediction": "epsilon",
            "zero_terminal_snr": False,
        },
        "condition_dropout": 0.1,
        "generator_training": {"steps": 1000, "lr": 1e-4, "patience": 0, **training},
        "sampler": {"type": "DDPM", "steps": None},  # all T, that is 1000
    }  # fmt: skip


def test_networks_of_the_paper_preset_have_the_published_sizes():
    preset = read_yaml(FOLDER / "paper.yaml")
    codec = build(AUTOENCODERS, preset["autoencoder"], "autoencoder", size=2048)
    diffusion = build(DENOISERS, preset["denoiser"], "denoiser", size=codec.latent)
    assert [sum(p.numel() for p in model.parameters()) for model in (codec, diffusion)] == pytest.approx(
        [2.2e6, 2.5e6], rel=0.02
    )


def test_paper_config_generates_200_samples_with_the_paper_preset():
    config = load(ROOT / "configs" / "classification" / "resnet18_digits_norms_paper.yaml")
    assert config.engine == {"preset": "paper", **read_yaml(FOLDER / "paper.yaml")}
    assert (config.generate.num, config.fit.repeats) == (200, 1)
