"""The selector language on small networks of every kind of norm layer, and on the networks of the paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pdiff.runtime.errors import PdiffError
from pdiff.weights.select import TERMS, is_norm, select, split_terms, training_modules


class Net(nn.Module):
    """A network with every norm layer that torch and torchvision have, and a submodule whose name holds a `-`."""

    def __init__(self):
        from torchvision.ops import FrozenBatchNorm2d

        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1, bias=False)
        self.layers = nn.ModuleDict(
            {
                "a-1": nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
                "b+2": nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)),
            }
        )
        self.frozen = FrozenBatchNorm2d(4)
        self.bare = nn.LayerNorm(4, elementwise_affine=False)
        self.norm = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 2)


BATCH = ["layers.a-1.1.weight", "layers.a-1.1.bias"]
GROUP = ["layers.b+2.1.weight", "layers.b+2.1.bias"]
FROZEN = ["frozen.weight", "frozen.bias"]
LAYER = ["norm.weight", "norm.bias"]
HEAD = ["fc.weight", "fc.bias"]
CONVOLUTIONS = ["layers.a-1.0.weight", "layers.a-1.0.bias", "layers.b+2.0.weight", "layers.b+2.0.bias"]
ALL = ["stem.weight", *CONVOLUTIONS[:2], *BATCH, *CONVOLUTIONS[2:], *GROUP, *FROZEN, *LAYER, *HEAD]
BATCH_STATISTICS = ["layers.a-1.1.running_mean", "layers.a-1.1.running_var", "layers.a-1.1.num_batches_tracked"]
PIECES = [
    *TERMS,
    *" +-()[]{}|\\.*?^$,0123\n",
    "fc",
    "norm",
    "layers.a-1",
    "running_var",
    "weight",
    "(?P<",
    "(?#",
    "é",
    "\0",
]
FROZEN_STATISTICS = ["frozen.running_mean", "frozen.running_var"]


@pytest.fixture(scope="module")
def net():
    """Return the small network."""
    return Net()


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("all", ALL),
        ("norms", [*BATCH, *GROUP, *FROZEN, *LAYER]),
        ("last_norms(1)", LAYER),
        ("last_norms( 3 )", [*GROUP, *FROZEN, *LAYER]),
        ("head", HEAD),
        ("module(fc)", HEAD),
        ("module(layers.a-1)", [*CONVOLUTIONS[:2], *BATCH]),
        ("module(layers.b+2.1)+head", [*GROUP, *HEAD]),
        ("module(layers.a-1)-module(layers.a-1.0)", BATCH),
        ("regex(^norm)", LAYER),
        (r"regex(^(fc|norm)\.(bias))", ["norm.bias", "fc.bias"]),
        (r"regex(a-1\.[0-9]\.bias) + head", ["layers.a-1.0.bias", "layers.a-1.1.bias", *HEAD]),
        ("norms - last_norms(2)", [*BATCH, *GROUP]),
        ("all-norms-head", ["stem.weight", *CONVOLUTIONS]),
        ("all - all + head", HEAD),
        (" head +\n norms ", [*BATCH, *GROUP, *FROZEN, *LAYER, *HEAD]),
        ("module(layers.a-1.1)+buffers", [*BATCH, *BATCH_STATISTICS]),
        ("module(frozen)+buffers", [*FROZEN, *FROZEN_STATISTICS]),
        ("regex(running_mean)", [BATCH_STATISTICS[0], FROZEN_STATISTICS[0]]),
        (r"regex(a-1\.1\.(weight|running_var))", [BATCH[0], BATCH_STATISTICS[1]]),
        (r"regex(a-1\.1)", BATCH),
        (r"regex(a-1\.1)+regex(running_.*)", [*BATCH, *BATCH_STATISTICS[:2], *FROZEN_STATISTICS]),
        (
            "norms+buffers-regex(num_batches_tracked)-module(frozen)",
            [*BATCH, *BATCH_STATISTICS[:2], *GROUP, *FROZEN_STATISTICS, *LAYER],
        ),
        ("norms+buffers-buffers-module(frozen)", [*BATCH, *GROUP, *LAYER]),
        (r"regex([(]|^fc)+norms-norms", HEAD),
        (r"regex(\(|^fc)", HEAD),
        (r"regex((^fc|^norm)\.b{1,2}ias)", ["fc.bias", "norm.bias"]),
        ("norms+buffers-module(frozen)", [*BATCH, *BATCH_STATISTICS, *GROUP, *FROZEN_STATISTICS, *LAYER]),
    ],
)
def test_a_selector_means(net, selector, names):
    assert sorted(select(net, selector, head=["fc"])) == sorted(names)


def test_names_come_in_the_order_of_the_state_dict_whatever_the_order_of_the_terms(net):
    for selector in ("head+norms+buffers", "norms+head+buffers"):
        names = select(net, selector, head=["fc"])
        assert names == [name for name in net.state_dict() if name in names]


def test_statistics_belong_to_a_selection_only_when_asked_for(net):
    assert not set(select(net, "all")) & {*BATCH_STATISTICS, *FROZEN_STATISTICS}
    assert set(select(net, "all+buffers")) == set(net.state_dict())


def test_buffers_are_those_of_the_modules_selected_before(net):
    assert select(net, "module(frozen)+buffers+head", head=["fc"]) == [*FROZEN, *FROZEN_STATISTICS, *HEAD]


def test_buffers_of_modules_without_parameters_belong_to_a_module_around_them_that_is_selected_whole():
    block = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False))
    model = nn.Sequential(block, nn.Linear(2, 2))
    linear, statistics = ["0.0.weight", "0.0.bias"], [f"0.1.{name}" for name, _ in block[1].named_buffers()]
    assert select(model, "module(0)+buffers") == [*linear, *statistics]
    assert select(model, "all-module(1)+buffers") == [*linear, *statistics]
    assert select(model, "module(0.1)") == select(model, "module(0.1)+buffers") == statistics
    with pytest.raises(PdiffError, match="have no buffers"):
        select(model, "regex(weight)+buffers")


def test_a_buffer_that_is_called_like_parameters_is_not_meant_with_them():
    model = nn.Sequential(nn.Linear(2, 2), nn.Identity())
    model[1].register_buffer("bias", torch.ones(2))
    assert select(model, "regex(bias)") == ["0.bias"]
    assert select(model, r"regex(1\.bias)") == ["1.bias"]
    assert select(model, "all+buffers") == ["0.weight", "0.bias", "1.bias"]


@pytest.mark.parametrize("selector", ["module(0)+buffers", "all+buffers"])
def test_buffers_of_a_parametrization_belong_to_its_module(selector):
    from torch.nn.utils.parametrizations import spectral_norm

    below = "0.parametrizations.weight"
    names = ["0.bias", f"{below}.original", f"{below}.0._u", f"{below}.0._v"]
    assert select(nn.Sequential(spectral_norm(nn.Linear(2, 2))), selector) == names


def test_both_parts_of_a_weight_norm_belong_to_its_module():
    from torch.nn.utils.parametrizations import weight_norm

    names = ["0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1"]
    assert select(nn.Sequential(weight_norm(nn.Linear(2, 2))), "module(0)") == names


def outcome(model: nn.Module, selector: str) -> list[str]:
    """Return the error line of a selector, or the names that it means and that the network lacks."""
    try:
        return sorted(set(select(model, selector, head=["fc"])) - set(model.state_dict()))
    except PdiffError as error:
        return [str(error)]


@settings(max_examples=300, deadline=None, database=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_whatever_is_written_is_a_selection_or_one_line(net, selector):
    found = outcome(net, selector)
    assert found == [] or (found[0].startswith("select: ") and found[0].isprintable())


def test_buffers_that_the_state_dict_lacks_are_not_selected():
    model = nn.Linear(2, 2)
    model.register_buffer("saved", torch.zeros(1))
    model.register_buffer("scratch", torch.zeros(1), persistent=False)
    assert select(model, "all+buffers") == ["weight", "bias", "saved"]


def test_a_head_of_several_modules_is_their_union(net):
    assert select(net, "head", head=["norm", "fc"]) == [*LAYER, *HEAD]


def test_signs_inside_parentheses_belong_to_the_term():
    assert split_terms("a+b(c-(d+e)-f)-g") == [("+", "a"), ("+", "b(c-(d+e)-f)"), ("-", "g")]


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(2), nn.SyncBatchNorm(2), nn.InstanceNorm2d(2, affine=True), nn.LayerNorm(2), nn.RMSNorm(2)],
    ids=lambda norm: type(norm).__name__,
)
def test_every_normalisation_class_is_a_norm(norm):
    names = [f"1.{name}" for name, _ in norm.named_parameters()]
    assert select(nn.Sequential(nn.Linear(2, 2), norm), "norms") == names


def test_an_own_class_that_descends_from_a_norm_is_a_norm():
    class Mine(nn.LayerNorm):
        pass

    assert select(nn.Sequential(nn.Linear(2, 2), Mine(2)), "norms") == ["1.weight", "1.bias"]


@pytest.mark.parametrize("base", [nn.Linear, nn.Conv1d])
def test_a_layer_whose_name_speaks_of_norms_but_that_is_none_is_not_selected(base):
    normed = type(f"Normed{base.__name__}", (base,), {})
    layer = normed(2, 2, 1) if base is nn.Conv1d else normed(2, 2)
    assert select(nn.Sequential(layer, nn.LayerNorm(2)), "norms") == ["1.weight", "1.bias"]


def test_the_helpers_of_weight_and_spectral_norm_are_no_norm_layers():
    from torch.nn.utils.parametrizations import spectral_norm, weight_norm

    model = nn.Sequential(spectral_norm(nn.Linear(2, 2)), weight_norm(nn.Linear(2, 2)), nn.LayerNorm(2))
    assert select(model, "norms") == ["2.weight", "2.bias"]


@pytest.fixture
def tied():
    """Return a network whose decoder has the encoder's weight and a bias of its own."""
    model = nn.ModuleDict({"encoder": nn.Embedding(3, 2), "decoder": nn.Linear(2, 3)})
    model["decoder"].weight = model["encoder"].weight
    return model


def test_a_tied_weight_is_selected_once_under_its_first_name(tied):
    assert select(tied, "all") == ["encoder.weight", "decoder.bias"]
    assert select(tied, "module(encoder)") == ["encoder.weight"]


def test_a_tied_weight_is_selected_through_either_module(tied):
    assert select(tied, "module(decoder)") == ["encoder.weight", "decoder.bias"]
    assert select(tied, "head", head=["decoder"]) == ["encoder.weight", "decoder.bias"]


def test_a_shared_module_is_selected_through_either_name():
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"first": shared, "second": shared})
    assert select(model, "module(second)") == ["first.weight", "first.bias"]


@pytest.mark.parametrize(
    ("selector", "line"),
    [
        ("nroms", r"^select: got unknown selector 'nroms'\. Did you mean 'norms'\? Known: all, buffers, head,"),
        ("fc", r"^select: got unknown selector 'fc'\. Write module\(fc\) for the module\. Known: all"),
        ("all+", r"^select: cannot read ''\. .*Known: all"),
        ("-norms", r"^select: cannot read ''\. .*Known: all"),
        ("", r"^select: cannot read ''\. .*Known: all"),
        ("all norms", r"^select: cannot read 'all norms'\."),
        ("module(fc", r"^select: cannot read 'module\(fc'\. A parenthesis lacks its counterpart: add it, or write"),
        ("head+a,)", r"^select: cannot read 'head\+a,\)'\. A parenthesis lacks"),
        ("(a,b", r"^select: cannot read '\(a,b'\. A parenthesis lacks"),
        ("[[1,2]", r"^select: cannot read '\[\[1,2\]'\. Known: "),
        ("regex(a{1,2}b)", r"^select: regex\(a\{1,2\}b\) matches nothing\. Closest names: "),
        ("regex((bn1|bn2),x)", r"^select: regex\(\(bn1\|bn2\),x\) matches nothing\."),
        ("module()", r"^select: got module\(\), which is not in the network"),
        ("module(a,b)", r"^select: got module\(a,b\), which is not in the network\."),
        ("module((fc))", r"^select: got module\(\(fc\)\), which is not in the network\. Closest names: fc"),
        ("norms++head", r"^select: cannot read ''\. Known: "),
        ("regex(a{99999999999})", r"^select: got regex\(a\{99999999999\}\), which is no regular expression"),
        (f"regex({'(' * 5000}{')' * 5000})", r"^select: got regex\(\({100} \.\.\. \){100}\), which is no regular"),
        (f"last_norms({'9' * 5000})", r"^select: got last_norms\(9{100} \.\.\. 9{100}\), expected a number"),
        ("module(a\nb\ud800)", r"^select: got module\(a\\nb\\ud800\), which is not in the network\."),
        ("module", r"^select: got 'module', expected module\(\.\.\.\)\.$"),
        ("norms(2)", r"^select: got 'norms\(2\)', expected norms without parentheses\.$"),
        ("last_norms(0)", r"^select: got last_norms\(0\), expected a number from 1 to 4\.$"),
        ("last_norms(5)", r"^select: got last_norms\(5\), expected a number from 1 to 4\.$"),
        ("last_norms(-1)", r"^select: got last_norms\(-1\), expected a number"),
        ("last_norms(two)", r"^select: got last_norms\(two\), expected a number"),
        ("last_norms(²)", r"^select: got last_norms\(²\), expected a number"),
        ("module(layers.a_1)", r"^select: got module\(layers\.a_1\), which .* Closest names: .*layers\.a-1"),
        ("module(bare)", r"^select: module\(bare\) has no parameters\. Closest names: "),
        ("regex(norm.wieght)", r"^select: regex\(norm\.wieght\) matches nothing\. Closest names: norm\.weight"),
        ("regex([)", r"^select: got regex\(\[\), which is no regular expression \(.*\)\.$"),
        ("head", r"^select: this task names no head\. Use module\(\.\.\.\)"),
        ("norms-norms", r"^select: got 'norms-norms', which leaves nothing selected\."),
        ("module(fc)+buffers", r"^select: the selected modules have no buffers\."),
        ("buffers", r"^select: the selected modules have no buffers\. Take '\+buffers' away, or put it last\.$"),
    ],
)
def test_a_selector_that_cannot_be_meant_is_refused_with_what_could(net, selector, line):
    with pytest.raises(PdiffError, match=line):
        select(net, selector)


def test_a_head_that_the_network_lacks_is_refused_with_the_closest_names(net):
    with pytest.raises(PdiffError, match=r"module\(fcc\), which .* the network.* Closest names: fc"):
        select(net, "head", head=["fcc"])


def test_a_network_without_norm_layers_is_refused():
    with pytest.raises(PdiffError, match=r"^select: the network has no normalisation layer with parameters\. Use"):
        select(nn.Linear(2, 2), "norms")


@pytest.mark.parametrize(
    ("network", "size"), [("resnet18", 2048), ("vit_tiny_patch16_224", 768), ("convnext_tiny", 3072)]
)
def test_the_last_two_norms_of_a_timm_network_have_the_size_of_the_paper(network, size):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(network)
    assert sum(model.state_dict()[name].numel() for name in select(model, "last_norms(2)")) == size


def test_the_last_two_norms_of_a_resnet18_are_those_of_its_last_block():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("resnet18")
    expected = [f"layer4.1.bn{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")]
    assert select(model, "last_norms(2)") == expected


def test_statistics_that_training_mode_would_change_must_be_selected(net):
    with pytest.raises(PdiffError) as caught:
        training_modules(net, BATCH)
    line = "collect.finetune.mode: got 'train', which changes layers.a-1.1.running_mean, which is not selected."
    assert str(caught.value) == f"{line} Add +buffers to the selector or use mode eval."


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        ([*BATCH, *BATCH_STATISTICS], ["layers.a-1.1"]),
        ([BATCH[1], *BATCH_STATISTICS, *GROUP], ["layers.a-1.1", "layers.b+2.1"]),
        (HEAD, ["fc"]),
        (CONVOLUTIONS[:2], ["layers.a-1.0"]),
        (FROZEN, []),
        ([], []),
    ],
)
def test_modules_with_a_selected_parameter_are_put_into_training_mode(net, names, modules):
    assert training_modules(net, names) == [net.get_submodule(name) for name in modules]


def test_modules_that_hold_a_selected_tensor_under_another_name_are_put_into_training_mode():
    model = nn.ModuleDict({"a": nn.BatchNorm1d(2), "b": nn.BatchNorm1d(2)})
    model["b"].weight = model["a"].weight
    statistics = [name for name, _ in model.named_buffers()]
    assert training_modules(model, ["a.weight", *statistics]) == [model["a"], model["b"]]
    assert select(model, "regex(b.weight)+buffers") == ["a.weight", *statistics]
    with pytest.raises(PdiffError, match="changes b.running_mean, which is not selected"):
        training_modules(model, ["a.weight", *statistics[:3]])


def test_modules_of_one_kind_alone_may_be_put_into_training_mode(net):
    net.fc.register_buffer("calls", torch.zeros(1))
    try:
        assert training_modules(net, [*HEAD, *LAYER], is_norm) == [net.norm]
    finally:
        del net.fc.calls
