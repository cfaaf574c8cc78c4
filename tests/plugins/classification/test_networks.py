"""Networks by config, the mini networks among them."""

import pytest
import torch
from pdiff_plugins.classification.mini import NETWORKS, sincos_positions
from pdiff_plugins.classification.networks import build_network, head_names
from pdiff_plugins.images.data import Split

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_tensors
from pdiff.weights.select import select

PUBLISHED = {
    "convnet_mini": 24_262,
    "mlp_mini": 66_970,
    "resnet_mini": 25_138,
    "vit_mini": 80_714,
    "convnext_mini": 74_970,
}
TIMM_HEADS = {"test_resnet": "fc", "test_vit": "head", "test_convnext": "head.fc"}


def split_of(size: int = 64, channels: int = 3, classes: int = 10) -> Split:
    """Return two images that networks are built for."""
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    return Split(images, torch.tensor([0, classes - 1]), classes, size, 2, torch.device("cpu"))


def timm_network(name: str = "test_resnet", size: int = 32, **settings):
    """Return a timm network for images of one channel and five classes."""
    return build_network({"type": "timm", "name": name, **settings}, split_of(size, 1, 5))


def test_mini_networks_are_the_five_published_ones():
    assert set(NETWORKS) == set(PUBLISHED)


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_mini_network_has_the_published_number_of_parameters(name, size):
    model = build_network({"type": name}, split_of())
    assert sum(p.numel() for p in model.parameters()) == size
    # Everything in the state dict is a parameter, so that `all` selects the whole network.
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == size


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize(("channels", "classes"), [(3, 10), (1, 4)])
def test_mini_network_takes_64_pixels_and_any_channels_and_classes(name, channels, classes):
    split = split_of(64, channels, classes)
    logits = build_network({"type": name}, split)(split.pixels(slice(0, 2)))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_of_a_mini_network_gets_a_gradient(name):
    split = split_of()
    model = build_network({"type": name}, split)
    model(split.pixels(slice(0, 2))).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_mini_network_treats_the_images_of_a_batch_independently(name):
    split = split_of()
    model, images = build_network({"type": name}, split), split.pixels(slice(0, 2))
    torch.testing.assert_close(model(images)[:1], model(images[:1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_mini_network_of_another_size_is_refused(name):
    with pytest.raises(PdiffError, match=rf"^task\.data\.size: got 32, expected 64 for the network '{name}'\.$"):
        build_network({"type": name}, split_of(32))


def test_positions_differ_and_have_the_norm_of_sines_and_cosines():
    positions = sincos_positions(3, 5, 16)
    assert positions.shape == (15, 16)
    assert len(positions.unique(dim=0)) == 15
    torch.testing.assert_close(positions.square().sum(1), torch.full((15,), 8.0))


def test_perceptron_has_the_layers_that_the_config_says():
    split = split_of(8, 1, 2)
    model = build_network({"type": "mlp", "hidden": [32], "activation": "silu"}, split)
    assert [tuple(tensor.shape) for tensor in model.parameters()] == [(32, 64), (32,), (2, 32), (2,)]
    assert head_names(model) == ("head",)
    deep = build_network({"type": "mlp", "hidden": [16, 8], "activation": "relu"}, split_of(8, 3, 10))
    assert deep(split_of(8, 3, 10).pixels(slice(0, 2))).shape == (2, 10)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"activation": "slu"}, r"^task\.network\.activation: got 'slu'\. Did you mean 'silu'\? Known: gelu, "),
        ({"hidden": [32, 0]}, r"^task\.network\.hidden: got 0, expected an integer from 1 on\.$"),
        ({"hiden": [32]}, r"^task\.network: got unknown key 'hiden'"),
    ],
)
def test_perceptron_that_cannot_be_is_refused(settings, line):
    with pytest.raises(PdiffError, match=line):
        build_network({"type": "mlp", **settings}, split_of(8, 1, 2))


def test_timm_network_fits_channels_and_classes_of_the_data():
    split = split_of(32, 1, 5)
    assert timm_network()(split.pixels(slice(0, 2))).shape == (2, 5)


def test_timm_network_takes_options():
    model = timm_network("test_vit", 32, options={"img_size": 32, "patch_size": 8})
    assert model(torch.rand(1, 1, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize("options", [{"depht": 2}, {"num_classes": 3}])
def test_timm_option_that_does_not_fit_is_refused_in_one_line(options):
    line = rf"^task\.network: timm cannot make 'test_resnet' \(.*{next(iter(options))}.*Check `options`"
    with pytest.raises(PdiffError, match=line) as caught:
        timm_network(options=options)
    assert "\n" not in str(caught.value)


def test_unknown_timm_name_is_refused_with_the_closest():
    with pytest.raises(PdiffError, match=r"^task\.network\.name: got 'resnet181'.* Closest: .*resnet18.*\.$"):
        timm_network("resnet181")
    with pytest.raises(PdiffError, match=r"^task\.network\.name: got '%'.* Closest: none\.$"):
        timm_network("%")


def test_unknown_type_of_network_is_refused_with_those_that_exist():
    known = ", ".join(sorted([*PUBLISHED, "mlp", "timm"]))
    line = rf"^task\.network\.type: got 'resnet_minni'\. Did you mean 'resnet_mini'\? Known: {known}\.$"
    with pytest.raises(PdiffError, match=line):
        build_network({"type": "resnet_minni"}, split_of())


def test_setting_that_a_mini_network_does_not_have_is_refused():
    with pytest.raises(PdiffError, match=r"^task\.network: got unknown key 'depth'"):
        build_network({"type": "vit_mini", "depth": 2}, split_of())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("settings", [{}, {"prefix": "module."}, {"rename": {"module.": ""}}])
def test_checkpoint_of_a_wrapped_network_is_loaded(tmp_path, suffix, settings):
    trained = timm_network()
    state = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
    path = tmp_path / f"trained.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        write_tensors(path, state)
    model = timm_network(checkpoint=str(path), **settings)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])


def test_checkpoint_is_read_at_a_key_and_rounded(tmp_path):
    trained = timm_network()
    state = {name: tensor.double() / 3 for name, tensor in trained.state_dict().items() if tensor.is_floating_point()}
    torch.save({"raw": trained.state_dict(), "other": state}, tmp_path / "trained.pth")
    model = timm_network(checkpoint=str(tmp_path / "trained.pth"), key="other", cast=True)
    assert torch.equal(model.state_dict()["fc.weight"], state["fc.weight"].float())


@pytest.mark.parametrize("spoil", ["missing", "additional", "shape"])
def test_checkpoint_that_does_not_fit_is_refused_by_file(tmp_path, spoil):
    state = timm_network().state_dict()
    if spoil == "missing":
        del state["fc.bias"]
    if spoil == "additional":
        state["fc.extra"] = torch.zeros(1)
    if spoil == "shape":
        state["fc.bias"] = torch.zeros(7)
    write_tensors(tmp_path / "bad.safetensors", state)
    with pytest.raises(PdiffError, match=r"bad\.safetensors: .*'fc\.(bias|extra)'") as caught:
        timm_network(checkpoint=str(tmp_path / "bad.safetensors"))
    assert "\n" not in str(caught.value)


def test_checkpoint_that_is_missing_is_refused_by_file(tmp_path):
    with pytest.raises(PdiffError, match=r"absent\.pth"):
        timm_network(checkpoint=str(tmp_path / "absent.pth"))


@pytest.mark.parametrize(("name", "head"), TIMM_HEADS.items())
def test_head_of_a_timm_network_is_its_classifier(name, head):
    model = timm_network(name)
    assert head_names(model) == (head,)
    assert select(model, "head", head_names(model)) == [f"{head}.weight", f"{head}.bias"]


def test_head_of_a_distilled_network_is_both_its_classifiers():
    model = timm_network("deit_tiny_distilled_patch16_224", options={"img_size": 32, "depth": 1})
    assert head_names(model) == ("head", "head_dist")
    assert len(select(model, "head", head_names(model))) == 4


@pytest.mark.parametrize("name", PUBLISHED)
def test_head_of_a_mini_network_is_selected(name):
    model = build_network({"type": name}, split_of())
    selected = select(model, "head", head_names(model))
    assert selected
    assert all(parameter.startswith("head.") for parameter in selected)
    assert model.state_dict()[selected[-1]].shape == (10,)
