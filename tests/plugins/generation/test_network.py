"""Networks from scratch, from a state dict and from diffusers' folders, and those that do not fit."""

import huggingface_hub
import pytest
import torch
from diffusers import DDPMPipeline

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_tensors


@pytest.fixture
def pipeline(build, tiny_generator, tmp_path):
    """The folder of a pipeline with an untrained network."""
    task = build(tiny_generator)
    task.export(task.model, tmp_path / "pipeline")
    return task, tmp_path / "pipeline"


def same(one, other) -> bool:
    """Say whether two networks have the same weights."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_unet_has_size_and_channels_of_the_images(build, tiny_generator):
    model = build(tiny_generator).model
    assert (model.config.sample_size, model.config.in_channels, model.config.out_channels) == (8, 1, 1)
    assert model.noise_schedule.config.prediction_type == "v_prediction"


def test_same_seed_gives_the_same_network_and_another_seed_another(build, tiny_generator):
    torch.manual_seed(5)
    one = build(tiny_generator).model
    assert same(one, build(tiny_generator).model)
    assert not same(one, build({**tiny_generator, "seed": 1}).model)


def test_state_dict_is_loaded_strictly(build, tiny_generator, tmp_path):
    task = build({**tiny_generator, "seed": 1})
    state = {f"module.{name}": tensor for name, tensor in task.model.state_dict().items()}
    write_tensors(tmp_path / "unet.safetensors", state)
    tiny_generator["task"]["network"].update(checkpoint=str(tmp_path / "unet.safetensors"), prefix="module.")
    assert same(build(tiny_generator).model, task.model)
    write_tensors(tmp_path / "unet.safetensors", dict(list(state.items())[1:]))
    with pytest.raises(PdiffError, match=r"unet\.safetensors: lacks 'conv_in\.weight'; it has "):
        build(tiny_generator)


def test_pipeline_folder_brings_weights_and_noise_schedule(build, tiny_generator, pipeline):
    task, folder = pipeline
    tiny_generator["task"].update(network={"type": "pretrained", "name": str(folder)}, noise=None)
    found = build(tiny_generator).model
    assert same(found, task.model)
    assert found.noise_schedule.config.num_train_timesteps == 100


def test_folder_of_a_network_alone_needs_a_noise_schedule(build, tiny_generator, pipeline, tmp_path):
    task, _ = pipeline
    task.model.save_pretrained(tmp_path / "alone")
    tiny_generator["task"]["network"] = {"type": "pretrained", "name": str(tmp_path / "alone")}
    assert same(build(tiny_generator).model, task.model)
    tiny_generator["task"]["noise"] = None
    with pytest.raises(PdiffError, match=r"^task\.noise: got None, but .*alone holds no scheduler\. Give arguments of"):
        build(tiny_generator)


def test_images_of_another_size_than_the_networks_are_refused(build, tiny_generator, pipeline):
    tiny_generator["task"]["network"] = {"type": "pretrained", "name": str(pipeline[1])}
    tiny_generator["task"]["data"]["size"] = 16
    line = r"^task\.data: got images of 1 x 16 x 16 \(channels, height, width\), expected 1 x 8 x 8 as .*pipeline makes"
    with pytest.raises(PdiffError, match=line):
        build(tiny_generator)


def test_images_of_another_number_of_channels_than_the_networks_are_refused(build, tiny_generator, pipeline, tmp_path):
    import numpy as np

    images, labels = np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "rgb.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    tiny_generator["task"]["network"] = {"type": "pretrained", "name": str(pipeline[1])}
    tiny_generator["task"]["data"] = {"type": "npz", "path": str(tmp_path / "rgb.npz"), "size": 8, "select": 10}
    with pytest.raises(PdiffError, match=r"^task\.data: got images of 3 x 8 x 8 .*, expected 1 x 8 x 8 as "):
        build(tiny_generator)


def test_size_that_the_layers_cannot_halve_is_refused_before_any_training(build, tiny_generator):
    tiny_generator["task"]["data"]["size"] = 7
    with pytest.raises(PdiffError, match=r"^task\.data\.size: the network cannot take images of 7 pixels \("):
        build(tiny_generator)


def test_weights_that_cannot_be_reached_are_one_clear_line(build, tiny_generator, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    tiny_generator["task"]["network"] = {"type": "pretrained", "name": "nobody/has-this"}
    with pytest.raises(PdiffError, match=r"^task\.network\.name: got 'nobody/has-this', which cannot be loaded") as e:
        build(tiny_generator)
    assert str(e.value).endswith("bring the folder: `hf download` elsewhere, and give its path.")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("noise", "line"),
    [
        (None, r"^task\.noise: got None, expected arguments of diffusers' DDPMScheduler"),
        ({"beta_schedul": "linear"}, r"^task\.noise: got unknown key 'beta_schedul'\. Did you mean 'beta_schedule'"),
        ({"beta_schedule": "cubic"}, r"^task\.noise: diffusers refuses it \(cubic"),
        ({"prediction_type": "x0"}, r"^task\.noise\.prediction_type: got 'x0'\. Known: epsilon, sample, v_pred"),
    ],
)
def test_unsound_noise_schedule_is_refused(build, tiny_generator, noise, line):
    tiny_generator["task"]["noise"] = noise
    with pytest.raises(PdiffError, match=line):
        build(tiny_generator)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"width": 8}, r"^task\.network\.options: got unknown key 'width'"),
        ({"block_out_channels": [8]}, r"^task\.network\.options: diffusers cannot make such a UNet2DModel \("),
        ({"norm_num_groups": 5}, r"^task\.network\.options: diffusers cannot make such a UNet2DModel \("),
        ({"in_channels": 3}, r"^task\.network\.options: got unknown key 'in_channels'"),
    ],
)
def test_unsound_options_of_the_unet_are_refused(build, tiny_generator, options, line):
    tiny_generator["task"]["network"]["options"].update(options)
    with pytest.raises(PdiffError, match=line):
        build(tiny_generator)


def test_pipeline_that_was_exported_makes_images(pipeline):
    loaded = DDPMPipeline.from_pretrained(pipeline[1])
    loaded.set_progress_bar_config(disable=True)
    images = loaded(batch_size=2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 8, 8, 1)
    assert 0 <= images.min() <= images.max() <= 1
