"""Checkpoints of any tool into the names, shapes and types of one network."""

import copy
import warnings

import pytest
import torch
from torch import nn

from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_tensors


class Network(nn.Module):
    """A convolution, a normalisation and a head."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)


class Tied(nn.Module):
    """An embedding that is the head too, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.wte, self.mix, self.head = nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False)
        self.head.weight, self.again = self.wte.weight, self.mix


@pytest.fixture
def network():
    """Return the network that files are read for."""
    return Network()


def make_state() -> dict:
    """Return the state dict of another network."""
    torch.manual_seed(0)
    return {name: tensor + 1 for name, tensor in Network().state_dict().items()}


STATE = make_state()
MOVED = {name: tensor + 1 for name, tensor in STATE.items()}


def under(prefix: str, state: dict = STATE) -> dict:
    """Return a state dict with a prefix before all names."""
    return {prefix + name: tensor for name, tensor in state.items()}


def same(found: dict, expected: dict) -> bool:
    """Say whether two state dicts are equal."""
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture
def read(tmp_path, network):
    """Return a function that saves content and reads it into a network."""

    def save_and_read(content, model=network, **settings):
        torch.save(content, tmp_path / "a.pth")
        return Reader(model, **settings).read(tmp_path / "a.pth")

    return save_and_read


@pytest.fixture
def refused(read, tmp_path):
    """Return a function that returns the line over content that cannot be read, without the file before it."""

    def line(content, **settings) -> str:
        with pytest.raises(PdiffError) as raised:
            read(content, **settings)
        start = f"{tmp_path / 'a.pth'}: "
        assert str(raised.value).startswith(start)
        assert "\n" not in str(raised.value)
        return str(raised.value).removeprefix(start)

    return line


@pytest.fixture
def said(caplog):
    """Return a function that returns what was said."""
    caplog.set_level("INFO", "pdiff")
    return lambda: caplog.messages


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "best": torch.tensor(0.5)},
        {"epoch": torch.tensor(0), "model_state_dict": STATE},
        {"net": under("module."), "acc": 95.1},
        {"state": {"net": STATE}},
        {"a": {"b": [{"c": (STATE, 1)}]}},
        {0: STATE},
        {"model": STATE, "network": STATE},
        {"model": STATE, "network": {name: tensor.clone() for name, tensor in STATE.items()}},
        {name: {n.partition(".")[2]: STATE[n] for n in STATE if n.startswith(name)} for name in ("conv", "bn", "fc")},
        {"model": STATE, "optimizer": torch.optim.Adam(Network().parameters()).state_dict()},
        {"state_dict": under("model.") | {"criterion.weight": torch.ones(3)}, "pytorch-lightning_version": "2"},
    ],
)
def test_the_state_dict_is_found_wherever_the_names_fit(read, content):
    assert same(read(content), STATE)


PREFIXES = ("module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module.", "model.", "encoder.net.", "ema.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_wrappers_put_before_names_is_found(read, prefix):
    assert same(read(under(prefix)), STATE)


def test_what_wrappers_put_into_names_is_found(read):
    assert same(read({name.replace(".", ".module.", 1): tensor for name, tensor in STATE.items()}), STATE)


def test_a_wrapped_network_takes_a_file_without_wrappers(read):
    assert same(read(STATE, nn.DataParallel(Network())), under("module."))


def test_an_adapter_without_its_name_is_found(read):
    own = nn.ModuleDict({"lora_A": nn.ModuleDict({"default": nn.Linear(2, 3, bias=False)})})
    found = read({"lora_A.weight": torch.ones(3, 2)}, own)
    assert same(found, {"lora_A.default.weight": torch.ones(3, 2)})


def test_what_was_found_in_the_names_is_said_once(tmp_path, network, said):
    reader = Reader(network)
    for number in range(2):
        torch.save(under("module.") | {"n_averaged": torch.tensor(3)}, tmp_path / f"{number}.pth")
        reader.read(tmp_path / f"{number}.pth")
    assert said() == [
        "checkpoints: 0.pth: 'module' is taken out of the names",
        "checkpoints: 0.pth: 'n_averaged' left out: tools leave such beside a network's",
    ]


@pytest.mark.parametrize(
    ("content", "option"),
    [
        ({"state_dict_ema": under("module.", MOVED), "state_dict": STATE}, "checkpoints.key=state_dict_ema"),
        ({"params_ema": MOVED, "params": STATE}, "checkpoints.key=params_ema"),
        ({"model": STATE, "modelEMA": MOVED}, "checkpoints.key=modelEMA"),
        ({**under("ema.", MOVED), **STATE}, "checkpoints.prefix='ema.'"),
    ],
)
def test_weights_are_taken_before_their_averages_which_an_option_takes(read, said, content, option):
    assert same(read(content), STATE)
    assert any(f"averages of the weights are left out; {option} takes them instead" in line for line in said())
    name, _, value = option.removeprefix("checkpoints.").partition("=")
    assert same(read(content, **{name: value.strip("'")}), MOVED)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ({"generator": STATE, "discriminator": MOVED}, "checkpoints.key=generator, checkpoints.key=discriminator"),
        ([STATE, MOVED], "checkpoints.key=0, checkpoints.key=1"),
        (under("student.") | under("teacher.", MOVED), "checkpoints.prefix='student.', checkpoints.prefix='teacher.'"),
    ],
)
def test_of_two_networks_that_fit_one_must_be_chosen(read, refused, content, options):
    assert refused(content) == f"holds 2 networks that fit. Choose one: {options}."
    name, _, value = options.partition(", ")[0].removeprefix("checkpoints.").partition("=")
    assert same(read(content, **{name: value.strip("'")}), STATE)


def test_of_two_networks_the_one_of_the_right_shapes_is_taken(read):
    other = STATE | {"conv.weight": torch.ones(8, 1, 3, 3), "fc.weight": torch.ones(3, 8)}
    assert same(read({"discriminator": other, "generator": STATE}), STATE)


def test_a_key_may_have_dots_and_levels(read):
    assert same(read({"a.b": {"c": STATE}, "d": MOVED}, key="a.b.c"), STATE)


@pytest.mark.parametrize(("key", "what"), [("genn", "nothing"), ("log", "no tensor"), ("gen.fc.weight", "no tensor")])
def test_a_key_without_tensors_is_refused_with_those_that_have(refused, key, what):
    line = refused({"gen": STATE, "log": [1]}, key=key)
    assert line.startswith(f"checkpoints.key: got {key!r}, where {what} stands. ")
    assert line.endswith("Known: gen.")


def test_only_names_with_the_prefix_are_taken(read):
    assert same(read({**under("ema.", MOVED), **STATE}, prefix="ema."), MOVED)
    assert same(read({"state_dict": under("m.")}, prefix="m."), STATE)


def test_a_prefix_that_no_name_has_is_refused_with_those_there_are(refused):
    line = "checkpoints.prefix: got 'ema_model.', with which no name in the file begins."
    content = {"state_dict": under("a."), "b": under("b.")}
    assert refused(content, prefix="ema_model.") == f"{line} They begin with: 'a.', 'b.'."
    assert refused({"w": torch.ones(1)}, prefix="ema_model.") == f"{line} They are: 'w'."


def test_names_are_renamed_by_rules_one_after_another(read):
    content = {name.replace("conv", "stem.0"): tensor for name, tensor in under("x.").items()}
    assert same(read(content, rename={"^x": "y", r"^y\.": "", r"stem\.(\d)": "conv"}), STATE)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"(": ""}, "checkpoints.rename: got '(': '' (missing ), unterminated subpattern at position 0). Mend it."),
        ({"conv": r"\2"}, r"checkpoints.rename: got 'conv': '\\2' (invalid group reference 2 at position 1). Mend it."),
        ({"stem": "conv"}, "checkpoints.rename: got 'stem', which matches no name in the file: 'conv.weight', 'conv."),
        ({r"^(\w+)\.weight": "a.w"}, "checkpoints.rename: 'conv.weight' and 'bn.weight' both become 'a.w'. Mend it"),
    ],
)
def test_rules_that_do_not_work_are_refused(refused, rules, words):
    assert refused(STATE, rename=rules).startswith(words)


def test_a_part_of_the_network_is_read(read):
    part = {name: STATE[name] for name in ("fc.weight", "fc.bias")}
    assert same(read({"model": under("module.", part)}), part)


def test_only_what_is_wanted_must_be_there_and_fit(tmp_path, network):
    other = {name: tensor for name, tensor in STATE.items() if name != "conv.bias"} | {"fc.weight": torch.ones(9, 4)}
    torch.save(other, tmp_path / "a.pth")
    names = ["bn.bias", "bn.weight"]
    found = Reader(network).read(tmp_path / "a.pth", names)
    assert list(found) == names
    assert same(found, {name: STATE[name] for name in names})


def test_a_missing_tensor_is_named_with_one_that_is_there_and_what_would_fit(tmp_path, network):
    torch.save({name.replace("conv", "stem.0"): t for name, t in STATE.items()}, tmp_path / "a.pth")
    reader = Reader(network, "task.network")
    with pytest.raises(PdiffError) as raised:
        reader.load(tmp_path / "a.pth")
    rule = r"{'^stem\\.0\\.': 'conv.'}"
    assert str(raised.value) == (
        f"{tmp_path / 'a.pth'}: lacks 'conv.weight' and 1 more of the network's tensors; it has 'stem.0.weight'. "
        f"task.network.rename: {rule} would fit 2 of its names. Or give a file of this network."
    )
    assert same(Reader(network, rename={r"^stem\.0\.": "conv."}).read(tmp_path / "a.pth"), STATE)


@pytest.mark.parametrize("rules", ["a", ["a"], {"a": 1}])
def test_rules_that_are_no_texts_by_expression_are_one_line(network, rules):
    with pytest.raises(
        PdiffError, match=r"^task\.network\.rename: got .*, expected regular expressions and what takes"
    ):
        Reader(network, "task.network", rename=rules)


def test_a_prefix_that_is_glued_to_the_names_is_told_as_one(refused):
    assert "checkpoints.prefix='net_' would fit 9 of its names." in refused(under("net_"))


def test_names_without_what_the_network_has_before_them_are_told_how_to_get_it(refused):
    line = refused(STATE, model=nn.ModuleDict({"backbone": Network()}))
    assert "checkpoints.rename: {'^': 'backbone.'} would fit 9 of its names." in line


def test_a_file_of_another_network_is_told_by_a_name_of_each(refused):
    line = "lacks 'conv.weight' and 8 more of the network's tensors; it has 'a.weight'. Look at checkpoints.key, prefix"
    assert refused({"a.weight": torch.ones(2)}).startswith(line)


def test_a_part_of_a_network_in_files_is_named_for_what_it_is(tmp_path, network):
    path = tmp_path / "pytorch_model-00001-of-00002.bin"
    torch.save({"conv.weight": STATE["conv.weight"]}, path)
    with pytest.raises(PdiffError, match=r"lacks 'conv\.bias' .* It is a part of a network: join the parts"):
        Reader(network).load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.optim.SGD(Network().parameters(), 0.1).state_dict(), "holds the state of an optimizer, and no network."),
        ({"optimizer": {"state": {}, "param_groups": []}, "epoch": 1}, "holds the state of an optimizer, and no"),
        ({"optimizers": [{"state": {}, "param_groups": []}]}, "holds the state of an optimizer, and no network."),
        ({name: tensor.numpy() for name, tensor in STATE.items()}, "holds arrays of numpy, and no tensors. Turn them"),
        ({"model": {"a": STATE["fc.bias"].numpy()}}, "holds arrays of numpy, and no tensors."),
        (STATE["fc.bias"], "holds a single tensor without a name."),
        ({"epoch": 3, "name": "a"}, "holds no state dict, but 'epoch', 'name'."),
        ({}, "holds no state dict, and nothing that has a name."),
        (3, "holds no state dict, and nothing that has a name."),
    ],
)
def test_a_file_without_a_state_dict_is_named_for_what_it_is(refused, content, words):
    assert refused(content).startswith(words)


def test_a_whole_network_is_loaded_from_a_file(tmp_path, network):
    torch.save({"state_dict": under("module.")}, tmp_path / "a.pth")
    Reader(network).load(tmp_path / "a.pth")
    assert same(network.state_dict(), STATE)


def test_tensors_that_the_network_lacks_are_said_or_refused_where_all_must_fit(tmp_path, network, said):
    torch.save({**STATE, "aux.weight": torch.ones(2)}, tmp_path / "a.pth")
    assert same(Reader(network).read(tmp_path / "a.pth"), STATE)
    assert said() == ["checkpoints: a.pth: 'aux.weight' left out: the network does not have them"]
    with pytest.raises(PdiffError, match=r"a\.pth: holds 'aux\.weight', which the network does not have\. Give a file"):
        Reader(network).load(tmp_path / "a.pth")


KNOWN = ("n_averaged", "total_ops", "fc.total_params", "ema_conv_weight", "data_preprocessor.mean", "steps")


@pytest.mark.parametrize("name", KNOWN)
def test_what_tools_leave_beside_a_network_hinders_no_loading(tmp_path, network, name):
    torch.save({**STATE, name: torch.ones(1)}, tmp_path / "a.pth")
    Reader(network).load(tmp_path / "a.pth")
    assert same(network.state_dict(), STATE)


def test_counters_that_a_file_lacks_are_the_networks_own(tmp_path, network):
    network.bn.num_batches_tracked += 5
    torch.save({name: t for name, t in STATE.items() if not name.endswith("tracked")}, tmp_path / "a.pth")
    assert same(Reader(network).read(tmp_path / "a.pth"), STATE | {"bn.num_batches_tracked": torch.tensor(5)})
    Reader(network).load(tmp_path / "a.pth")
    assert network.bn.num_batches_tracked == 5


def test_names_of_old_versions_are_read_as_the_network_itself_reads_them(read):
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.BatchNorm1d(2))
    with warnings.catch_warnings(action="ignore"):
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)), nn.BatchNorm1d(2)).state_dict()
    expected = copy.deepcopy(new)
    expected.load_state_dict(old)
    assert same(read({"model": under("module.", old)}, new), expected.state_dict())


def test_what_only_old_names_say_is_not_told_as_left_out(tmp_path, caplog):
    caplog.set_level("INFO", "pdiff")
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.BatchNorm1d(2))
    with warnings.catch_warnings(action="ignore"):
        old = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)), nn.BatchNorm1d(2)).state_dict()
    torch.save(old, tmp_path / "old.pth")
    assert list(Reader(new).read(tmp_path / "old.pth", ["1.weight"])) == ["1.weight"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    "state",
    [
        Tied().state_dict(),
        {name: tensor.clone() for name, tensor in Tied().state_dict().items()},
        {name: tensor for name, tensor in Tied().state_dict().items() if not name.startswith(("head", "again"))},
        {name: tensor for name, tensor in Tied().state_dict().items() if not name.startswith(("wte", "mix"))},
    ],
)
def test_tied_tensors_are_read_by_any_of_their_names(tmp_path, state):
    write_tensors(tmp_path / "a.safetensors", state)
    tied = Tied()
    found = Reader(tied).read(tmp_path / "a.safetensors")
    assert list(found) == list(tied.state_dict())
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    assert torch.equal(found["head.weight"], found["wte.weight"])
    assert torch.equal(found["again.weight"], found["mix.weight"])


def test_two_values_of_one_tensor_are_refused_with_both_names(refused):
    state = Tied().state_dict()
    line = refused({**state, "head.weight": state["head.weight"] + 1}, model=Tied())
    assert line.startswith("'wte.weight' and 'head.weight' differ, but are one tensor in the network.")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_values_that_the_networks_types_have_are_cast(read, dtype):
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in STATE.items()}
    expected = {name: tensor.to(STATE[name].dtype) for name, tensor in state.items()}
    assert same(read(state), expected)


def test_values_that_the_networks_types_lack_are_refused_or_rounded(read, refused):
    state = {**STATE, "fc.bias": STATE["fc.bias"].double() / 3}
    line = "'fc.bias' is float64, with values that the network's float32 does not have."
    assert refused(state) == f"{line} Set checkpoints.cast=true to round them."
    assert torch.equal(read(state, cast=True)["fc.bias"], state["fc.bias"].float())
    line = refused(STATE, model=Network().half())
    assert line.startswith("'conv.weight' is float32, with values that the network's float16 does not have.")


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.full((3,), 1e300, dtype=torch.float64), "is float64, with values beyond the network's float32."),
        (torch.ones(3, dtype=torch.int8), "is int8, expected floating numbers like the network's float32. It may be"),
        (torch.ones(3, dtype=torch.complex64), "is complex64, expected floating numbers like the network's float32."),
        (torch.ones(3).to_sparse(), "is sparse, expected a plain tensor. Save it as one."),
        (torch.ones(10), "has the shape (10,), expected (3,) as the network has it."),
    ],
)
def test_values_that_are_of_another_kind_are_refused(refused, tensor, words):
    assert refused({**STATE, "fc.bias": tensor}, cast=True).startswith(f"'fc.bias' {words}")


@pytest.mark.parametrize("counter", [torch.tensor(8.0), torch.tensor([8]), torch.tensor(8, dtype=torch.int32)])
def test_counters_of_other_types_are_read(read, counter):
    assert same(
        read({**STATE, "bn.num_batches_tracked": counter}), {**STATE, "bn.num_batches_tracked": torch.tensor(8)}
    )


def test_not_a_number_is_read_as_it_is(read):
    assert read({**STATE, "fc.bias": torch.full((3,), torch.nan).double()})["fc.bias"].isnan().all()
