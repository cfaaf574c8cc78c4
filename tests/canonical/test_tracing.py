"""What is found to be free is free: random permutations and gains leave the outputs of every kind of network."""

import copy

import pytest
import torch
from pdiff_plugins.classification.mini import NETWORKS
from pdiff_plugins.classification.mlp import MLP
from torch import nn
from torch.nn import functional as F

from pdiff.canonical.applying import permute, scale
from pdiff.canonical.tracing import trace
from pdiff.runtime.errors import PdiffError
from pdiff.testing.simulated_cuda import simulated_cuda


class Written(nn.Module):
    """A network whose pass is a function of it and its inputs."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def names_of(model):
    return [name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.is_floating_point()]


def randomise(model):
    """Give a network a state in which nothing is 0 or 1 by chance."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            noise = torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor) * 0.1
            tensor.detach().copy_(noise if "running_var" in name else tensor.detach() + noise)


@torch.no_grad()
def follow(model, *inputs, names=None):
    """Trace a network, permute and scale all that is free, and compare its outputs; return the symmetries."""
    torch.manual_seed(0)
    model = model.double().eval()
    randomise(model)
    inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    names = names or names_of(model)
    found = trace(model, tuple(inputs), names)
    before, state = model(*inputs), {name: model.state_dict()[name].clone() for name in names}
    state = permute(state, found.groups, [torch.randperm(group.size) for group in found.groups])
    model.load_state_dict(state, strict=False)
    permuted = model(*inputs)
    factors = [torch.rand(gain.size, dtype=torch.float64) * 1.5 + 0.5 for gain in found.gains]
    model.load_state_dict(scale(state, found.gains, factors), strict=False)
    for after in (permuted, model(*inputs)):
        assert (after - before).abs().max() < 1e-9 * before.abs().max()
    return found


def sizes(parts):
    return [part.size for part in parts]


def stands(group):
    return [(place.tensor, place.axis, tuple(place.entries.shape)) for place in group.places]


def timm_model(name, **settings):
    import timm

    return timm.create_model(name, **settings)


def images(pixels=32, channels=3):
    return torch.randn(2, channels, pixels, pixels)


def test_hidden_units_of_a_perceptron():
    found = follow(MLP(64, 10, (16,), "relu"), images(8, 1))
    (group,), (gain,) = found.groups, found.gains
    assert (group.name, group.size) == ("features.1.weight", 16)
    assert stands(group) == [
        ("features.1.weight", 0, (16, 1)),
        ("features.1.bias", 0, (16, 1)),
        ("head.weight", 1, (16, 1)),
    ]
    assert [place.tensor for place in gain.made] == ["features.1.weight", "features.1.bias"]
    assert [(place.tensor, place.axis) for place in gain.read] == [("head.weight", 1)]
    assert found.notes == ()


def test_units_behind_an_activation_that_is_not_homogeneous_are_not_scaled():
    found = follow(MLP(64, 10, (16, 8), "gelu"), images(8, 1))
    assert sizes(found.groups) == [16, 8]
    assert found.gains == ()


@pytest.mark.parametrize(
    ("name", "groups", "gains"),
    [
        ("convnet_mini", [8, 8, 4, 16], [8, 8, 4, 16]),
        ("mlp_mini", [64, 16], [64, 16]),
        ("resnet_mini", [8, 4, 4, 16], [4, 4, 8, 16]),
        ("vit_mini", [4, 64] * 4, [192] + [64] * 9),
        ("convnext_mini", [16, 64, 32, 128, 128, 32, 128, 128, 32, 128, 128], [16] * 2 + [32] * 9),
    ],
)
def test_the_mini_networks(name, groups, gains):
    found = follow(NETWORKS[name](), images(64))
    assert sizes(found.groups) == groups
    assert sizes(found.gains) == gains


def test_a_flattened_map_has_all_pixels_of_a_channel_in_one_unit():
    found = follow(NETWORKS["convnet_mini"](), images(64))
    place = found.groups[2].places[-1]
    assert (place.tensor, place.axis) == ("head.1.weight", 1)
    assert torch.equal(place.entries, torch.arange(64).reshape(4, 16))


def test_channels_of_a_residual_stream_move_together():
    found = follow(timm_model("resnet18"), images())
    assert sizes(found.groups) == [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3
    assert sizes(found.gains) == sizes(found.groups)
    tensors = [place.tensor for place in found.groups[0].places]
    assert found.groups[0].name == tensors[0] == "conv1.weight"
    assert {"bn1.running_var", "layer1.0.bn2.weight", "layer1.1.bn2.bias", "layer2.0.downsample.0.weight"} <= set(
        tensors
    )
    assert "layer1.0.bn1.weight" not in tensors


def test_units_of_attention_are_heads():
    found = follow(timm_model("vit_tiny_patch16_224", img_size=32), images())
    assert sizes(found.groups) == [192] + [3, 768] * 12
    assert {("cls_token", 2, (192, 1)), ("pos_embed", 2, (192, 1))} <= set(stands(found.groups[0]))
    assert stands(found.groups[1]) == [
        ("blocks.0.attn.qkv.weight", 0, (3, 192)),
        ("blocks.0.attn.qkv.bias", 0, (3, 192)),
        ("blocks.0.attn.proj.weight", 1, (3, 64)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["resnet50", "convnext_atto", "mobilenetv3_small_050", "efficientnet_b0", "densenet121", "regnetx_002", "test_vit"],
)
def test_networks_of_timm(name):
    pixels = 160 if name == "test_vit" else 64
    assert len(follow(timm_model(name), images(pixels)).groups) > 10


def test_modules_of_torch_for_attention():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = follow(nn.Sequential(nn.Linear(7, 32), encoder, nn.Linear(32, 3)), torch.randn(2, 5, 7))
    assert sizes(found.groups) == [32, 4, 64, 4, 64]
    assert sizes(found.gains) == [64, 64, 32]


def test_concatenated_channels_of_a_network_with_skips():
    def function(self, x):
        fine = F.relu(self.fine(x))
        coarse = F.relu(self.up(F.relu(self.down(fine))))
        return self.head(F.leaky_relu(self.both(torch.cat([fine, coarse], 1))))

    model = Written(
        function,
        fine=nn.Conv2d(3, 8, 3, padding=1),
        down=nn.Conv2d(8, 16, 3, stride=2, padding=1),
        up=nn.ConvTranspose2d(16, 6, 2, stride=2),
        both=nn.Conv2d(14, 5, 3, padding=1),
        head=nn.Conv2d(5, 1, 1),
    )
    found = follow(model, images(8))
    assert sizes(found.groups) == sizes(found.gains) == [8, 16, 6, 5]
    assert found.groups[2].places[-1].entries.flatten().tolist() == list(range(8, 14))


def test_groups_of_channels_move_as_wholes():
    convolutions = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 12, 3, groups=4), nn.SiLU(), nn.Conv2d(12, 2, 1)
    )
    found = follow(convolutions, images(8))
    assert sizes(found.groups) == [4]
    assert stands(found.groups[0]) == [
        ("0.weight", 0, (4, 2)),
        ("0.bias", 0, (4, 2)),
        ("1.weight", 0, (4, 2)),
        ("1.bias", 0, (4, 2)),
        ("3.weight", 0, (4, 3)),
        ("3.bias", 0, (4, 3)),
        ("5.weight", 1, (4, 3)),
    ]


def test_channels_of_a_depthwise_convolution_are_those_of_its_input():
    found = follow(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)), images(8)
    )
    assert sizes(found.groups) == sizes(found.gains) == [8]


@pytest.mark.parametrize(
    ("function", "sizes_of_groups"),
    [
        (lambda self, x: self.last(F.glu(self.first(x))), [16]),
        (lambda self, x: self.last(torch.mul(*self.first(x).chunk(2, -1))), [16]),
        (lambda self, x: self.last(self.first(x)[:, 4:20]), [4, 16, 12]),
        (lambda self, x: self.last(self.first(x).unflatten(1, (2, 16)).amax(1)), [2]),
        (lambda self, x: torch.einsum("bi,oi->bo", self.first(x)[:, :16].softmax(-1), self.last.weight), [16, 16]),
        (lambda self, x: self.first(x)[:, :16] @ self.last.weight.T + torch.zeros_like(x)[:, :3], [16, 16]),
    ],
)
def test_operations_on_units(function, sizes_of_groups):
    found = follow(Written(function, first=nn.Linear(7, 32), last=nn.Linear(16, 3)), torch.randn(5, 7))
    assert sizes(found.groups) == sizes_of_groups


@pytest.mark.parametrize(
    "activation",
    [lambda x: x.div(2, rounding_mode="floor"), lambda x: x.to(torch.int32).to(x.dtype), lambda x: x + 1, torch.tanh],
)
def test_units_behind_what_is_not_homogeneous_are_not_scaled(activation):
    parts = {"first": nn.Linear(7, 32), "last": nn.Linear(32, 3)}
    found = follow(Written(lambda self, x: self.last(activation(4 * self.first(x))), **parts), torch.randn(5, 7))
    assert sizes(found.groups) == [32]
    assert found.gains == ()


def test_what_is_written_into_a_tensor_is_followed():
    def function(self, x):
        hidden, whole = self.first(x), torch.zeros(5, 40, dtype=x.dtype)
        hidden.relu_().add_(self.second(x).relu())
        hidden[:, :8] += self.third(x).relu()
        whole[:, :32] = hidden
        whole[:, 32:] = self.fourth(x)
        return self.last(F.relu(whole))

    parts = {name: nn.Linear(7, size) for name, size in [("first", 32), ("second", 32), ("third", 8), ("fourth", 8)]}
    found = follow(Written(function, **parts, last=nn.Linear(40, 3)), torch.randn(5, 7))
    assert sizes(found.groups) == [8, 24, 8]
    assert stands(found.groups[0])[-1] == ("last.weight", 1, (8, 1))
    assert found.groups[1].places[-1].entries.flatten().tolist() == list(range(8, 32))
    assert found.gains == ()


def test_repeated_units_have_several_entries():
    parts = {"first": nn.Linear(7, 8), "last": nn.Linear(24, 3)}
    found = follow(Written(lambda self, x: self.last(self.first(x).tile(1, 3)), **parts), torch.randn(5, 7))
    assert found.groups[0].places[-1].entries.tolist() == [[i, i + 8, i + 16] for i in range(8)]
    assert sizes(found.gains) == [8]


def test_axes_that_change_in_place_keep_their_order():
    parts = {"first": nn.Linear(7, 7), "last": nn.Linear(7, 3)}

    def function(self, x):
        hidden = self.first(x)
        hidden.t_()
        return self.last(F.relu(hidden))

    with pytest.raises(PdiffError, match="no unit can change places"):
        follow(Written(function, **parts), torch.randn(7, 7))


def test_normed_weights():
    first = nn.utils.parametrizations.weight_norm(nn.Linear(7, 32))
    assert sizes(follow(nn.Sequential(first, nn.ReLU(), nn.Linear(32, 3)), torch.randn(5, 7)).groups) == [32]


def test_a_layer_scale_is_what_scales():
    def function(self, x):
        stream = self.first(x)
        return self.last(stream + self.scale * self.out(F.relu(self.inner(stream))))

    model = Written(
        function,
        first=nn.Linear(7, 32),
        inner=nn.Linear(32, 9),
        out=nn.Linear(9, 32),
        scale=nn.Parameter(torch.rand(32)),
        last=nn.Linear(32, 3),
    )
    found = follow(model, torch.randn(5, 7))
    assert sizes(found.groups) == sizes(found.gains) == [32, 9]
    assert "scale" in [place.tensor for place in found.gains[0].made]


def test_tied_tensors_stand_once_for_all_their_uses():
    model = Written(
        lambda self, x: self.last(F.relu(self.two(F.relu(self.one(F.relu(self.first(x))))))),
        first=nn.Linear(7, 16),
        one=nn.Linear(16, 16),
        two=nn.Linear(16, 16),
        last=nn.Linear(16, 3),
    )
    model.two.weight = model.one.weight
    names = [name for name in names_of(model) if name != "two.weight"]
    (group,) = follow(model, torch.randn(5, 7), names=names).groups
    assert [axis for tensor, axis, _ in stands(group) if tensor == "one.weight"] == [0, 1]
    assert "two.weight" not in [place.tensor for place in group.places]
    assert sizes(follow(model, torch.randn(5, 7), names=[n for n in names_of(model) if n != "one.weight"]).groups) == [
        16
    ]


def test_what_only_training_needs_keeps_its_order():
    def function(self, x):
        hidden = F.relu(self.first(x))
        self.auxiliary(hidden)
        return self.last(hidden)

    parts = {"first": nn.Linear(7, 32), "auxiliary": nn.Linear(32, 5), "last": nn.Linear(32, 3)}
    found = follow(Written(function, **parts), torch.randn(5, 7))
    assert sizes(found.groups) == [32]
    assert ("auxiliary.weight", 1, (32, 1)) in stands(found.groups[0])


def test_units_that_meet_what_is_not_selected_keep_their_order_and_it_is_said():
    model = MLP(64, 10, (16, 8), "relu")
    found = follow(model, images(8, 1), names=[n for n in names_of(model) if n != "features.1.bias"])
    assert sizes(found.groups) == [8]
    assert "features.1.weight: features.1.bias is not selected: the units along it keep their order" in found.notes


def test_of_the_last_stage_the_units_within_are_free():
    model = timm_model("test_resnet")
    names = [name for name in names_of(model) if name.startswith("layer4")]
    found = follow(model, images(), names=names)
    assert names
    assert sizes(found.groups) == sizes(found.gains) == [96]
    with pytest.raises(PdiffError, match="no unit can change places"):
        trace(model, (images().double(),), [name for name in names if ".bn" in name])


def test_fixed_positions_pin_what_they_are_added_to():
    assert any("positions is not selected" in note for note in follow(NETWORKS["vit_mini"](), images(64)).notes)


def test_an_operation_without_a_rule_pins_what_it_touches_and_is_named():
    model = Written(
        lambda self, x: self.last(F.relu(self.middle(self.sorter(self.first(x))))),
        first=nn.Linear(7, 32),
        sorter=Written(lambda self, x: x.sort(-1).values),
        middle=nn.Linear(32, 9),
        last=nn.Linear(9, 3),
    )
    found = follow(model, torch.randn(5, 7))
    assert sizes(found.groups) == [9]
    assert found.notes == ("sorter: aten.sort.default: its units keep their order",)


def test_a_part_of_the_pass_in_another_mode_keeps_its_order():
    def function(self, x):
        with torch.no_grad():
            x = self.first(x)
        return self.last(F.relu(self.middle(x)))

    parts = {"first": nn.Linear(7, 32), "middle": nn.Linear(32, 9), "last": nn.Linear(9, 3)}
    model = Written(function, **parts)
    with torch.enable_grad():
        found = trace(model, (torch.randn(5, 7),), names_of(model))
    assert 9 in sizes(found.groups)


def test_a_network_stays_as_it_is():
    model = NETWORKS["convnet_mini"]().train()
    before = copy.deepcopy(model.state_dict())
    trace(model, (images(64),), names_of(model))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_inputs_that_are_no_tensors():
    model = Written(lambda self, x, mode: self.last(F.relu(self.first(x))) if mode == "tensor" else None)
    model.first, model.last = nn.Linear(7, 32), nn.Linear(32, 3)
    assert sizes(trace(model, (torch.randn(5, 7), "tensor"), names_of(model)).groups) == [32]


def test_a_selection_without_free_units_is_told_in_one_line(capsys):
    model = MLP(64, 10, (16,), "relu")
    with pytest.raises(PdiffError) as error:
        trace(model, (images(8, 1),), ["head.weight", "head.bias"])
    assert str(error.value) == (
        "fit.canonical: got 2 selected tensors of which no unit can change places (head.weight: features.1.weight is "
        "not selected: the units along it keep their order), expected layers with all that reads them. Implement the "
        "hook symmetries, or set fit.canonical to none."
    )


def test_a_pass_that_cannot_be_recorded_names_the_module(capsys):
    chooser = Written(lambda self, x: self.layer(x) if x.sum() > 0 else x, layer=nn.Linear(7, 7))
    with pytest.raises(PdiffError) as error:
        trace(nn.Sequential(nn.Linear(7, 7), chooser), (torch.randn(5, 7),), ["0.weight"])
    assert str(error.value).startswith("fit.canonical: 1 cannot be followed: ")
    assert str(error.value).endswith(". Implement the hook symmetries, or set fit.canonical to none.")
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_a_network_on_a_gpu_is_followed_like_one_on_the_cpu():
    model, batch = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 3)
    here = trace(model, (batch,), names_of(model))
    with simulated_cuda():
        there = trace(model.to("cuda"), (batch.to("cuda"),), names_of(model))
        assert model[0].weight.is_cuda
    assert str(there) == str(here)
