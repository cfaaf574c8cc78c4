"""Adapters of peft go in as they came out, and what is drawn goes out as peft reads it."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pdiff.run.export import export
from pdiff.runtime.errors import PdiffError
from pdiff.task.plugins import import_plugin

peft = pytest.importorskip("peft")
LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["conv", "head"]}


def small() -> nn.Module:
    """Return the network that the adapters are of."""
    torch.manual_seed(0)
    return import_plugin(str(Path(__file__).with_name("small_network.py"))).Small()


def write_adapters(folder, count: int = 4, safe: bool = True, **settings):
    """Write adapters as peft does, no two alike, and return the networks that they are of."""
    networks = []
    for number in range(count):
        model = peft.get_peft_model(small(), peft.LoraConfig(**{**LORA, **settings}))
        torch.manual_seed(number)
        for parameter in model.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(folder / f"adapter_{number}", safe_serialization=safe, save_embedding_layers=False)
        networks.append(model)
    return networks


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rank_pattern": {"head": 3}},
        {"use_dora": True, "target_modules": ["head"]},
        {"modules_to_save": ["head"], "target_modules": ["conv"]},
        {"bias": "lora_only"},
        {"use_rslora": True, "target_modules": "all-linear"},
    ],
)
def test_adapters_go_in_as_they_came_out(tmp_path, taken, settings, safe):
    networks = write_adapters(tmp_path / "zoo", safe=safe, **settings)
    saved = peft.get_peft_model_state_dict(networks[0])
    own = [n for n, t in networks[0].state_dict().items() if t.data_ptr() in {s.data_ptr() for s in saved.values()}]
    select = f"regex(^({'|'.join(name.replace('.', '[.]') for name in own)})$)"
    population = taken(
        tmp_path / "zoo", select=select, task={"adapters": {**LORA, **settings}}, format="peft", base="built"
    )
    assert len(population) == 4
    assert set(population.layout.names) == set(own)
    for row, network in enumerate(networks):
        assert torch.equal(population.tensor()[row], population.layout.flatten(network.state_dict()))


def test_columns_are_those_of_the_config(tmp_path, taken):
    write_adapters(tmp_path / "zoo")
    for number in range(4):
        path = tmp_path / "zoo" / f"adapter_{number}" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": number}))
    population = taken(
        tmp_path / "zoo", select="regex(lora_)", task={"adapters": LORA}, format="peft", base="built",
        conditions=["lora_alpha"], rows="peft_type == 'LORA' & lora_alpha > 0",
    )  # fmt: skip
    assert [record["file"] for record in population.provenance] == [
        f"adapter_{number}/adapter_model.safetensors" for number in (1, 2, 3)
    ]
    assert [record["condition"] for record in population.provenance] == [{"lora_alpha": float(n)} for n in (1, 2, 3)]
    assert population.provenance[0]["columns"]["r"] == 2


def test_one_folder_is_an_adapter_too(tmp_path, taken):
    write_adapters(tmp_path / "zoo", count=1)
    settings = {"select": "regex(lora_)", "task": {"adapters": LORA}, "format": "peft", "base": "built"}
    with pytest.raises(PdiffError, match=r"^population: got 1 checkpoint, expected at least 2\. Name more files\.$"):
        taken(tmp_path / "zoo" / "adapter_0", **settings)


def test_what_is_drawn_is_loaded_by_peft(tmp_path, fitted):
    networks = write_adapters(tmp_path / "zoo")
    directory = fitted(tmp_path / "zoo", select="regex(lora_)", task={"adapters": LORA}, format="peft", base="built")
    export(directory.path, "trained", "2", tmp_path / "out")
    first = tmp_path / "zoo" / "adapter_0"
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text()) == json.loads(
        (first / "adapter_config.json").read_text()
    )
    assert set(load_file(tmp_path / "out" / "adapter_model.safetensors")) == set(
        load_file(first / "adapter_model.safetensors")
    )
    loaded = peft.PeftModel.from_pretrained(small(), tmp_path / "out").eval()
    x = torch.randn(5, 1, 3, 3)
    assert torch.equal(loaded(x), networks[2].eval()(x))
    export(directory.path, "generated", "0", tmp_path / "drawn")
    peft.PeftModel.from_pretrained(small(), tmp_path / "drawn")


def test_the_file_alone_is_a_checkpoint_like_any_other(tmp_path, taken):
    networks = write_adapters(tmp_path / "zoo")
    (tmp_path / "flat").mkdir()
    for number in range(3):
        file = tmp_path / "zoo" / f"adapter_{number}" / "adapter_model.safetensors"
        file.rename(tmp_path / "flat" / f"{number}.safetensors")
    torch.save(networks[3].state_dict(), tmp_path / "flat" / "3.pt")
    settings = {"select": "regex(lora_)", "task": {"adapters": LORA}, "base": "built"}
    population = taken(tmp_path / "flat", **settings)
    for row, network in enumerate(networks):
        assert torch.equal(population.tensor()[row], population.layout.flatten(network.state_dict()))


def test_a_network_with_names_of_its_own_takes_adapters_by_rename(tmp_path, fitted):
    for number in range(3):
        folder = tmp_path / "zoo" / f"a{number}"
        folder.mkdir(parents=True)
        torch.manual_seed(number)
        head = {"top.lora_A.weight": torch.randn(4, 12), "top.lora_B.weight": torch.randn(4)}
        save_file({f"base_model.model.{n}": t for n, t in head.items()}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    rename = {r"^base_model\.model\.top": "head", r"lora_A\.": "", r"lora_B\.weight": "bias"}
    settings = {"select": "module(head)", "format": "peft", "base": "built", "rename": rename}
    directory = fitted(tmp_path / "zoo", **settings)
    export(directory.path, "trained", "1", tmp_path / "out")
    written, origin = (load_file(f / "adapter_model.safetensors") for f in (tmp_path / "out", tmp_path / "zoo" / "a1"))
    assert {name: tensor.tolist() for name, tensor in written.items()} == {n: t.tolist() for n, t in origin.items()}


def test_without_a_base_the_line_says_what_to_give(tmp_path, taken):
    write_adapters(tmp_path / "zoo")
    with pytest.raises(PdiffError, match=r"lacks 'base_model\.model\.conv.*checkpoints\.base=built for the"):
        taken(tmp_path / "zoo", select="regex(lora_)", task={"adapters": LORA}, format="peft")


def test_a_folder_without_adapters_is_one_line(tmp_path, taken):
    (tmp_path / "zoo").mkdir()
    with pytest.raises(PdiffError, match=r"expected folders with adapter_config\.json and adapter_model"):
        taken(tmp_path / "zoo", format="peft")


def test_an_adapter_of_another_rank_is_one_line(tmp_path, taken):
    write_adapters(tmp_path / "zoo", r=3)
    with pytest.raises(PdiffError, match="lora_A"):
        taken(tmp_path / "zoo", select="regex(lora_)", task={"adapters": LORA}, format="peft", base="built")


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000])
def test_settings_that_are_no_object_are_one_line(tmp_path, taken, text):
    write_adapters(tmp_path / "zoo")
    (tmp_path / "zoo" / "adapter_1" / "adapter_config.json").write_text(text)
    with pytest.raises(PdiffError, match=r"adapter_1/adapter_config\.json: is no JSON object of settings"):
        taken(tmp_path / "zoo", select="regex(lora_)", task={"adapters": LORA}, format="peft", base="built")


def test_an_adapter_without_settings_is_left_out_and_said(tmp_path, taken, caplog):
    write_adapters(tmp_path / "zoo")
    count = len(taken(tmp_path / "zoo", select="regex(lora_)", task={"adapters": LORA}, format="peft", base="built"))
    (tmp_path / "zoo" / "adapter_1" / "adapter_config.json").unlink()
    own = {"select": "regex(lora_)", "task": {"adapters": LORA}, "format": "peft", "base": "built", "folder": "less"}
    assert len(taken(tmp_path / "zoo", **own)) == count - 1
    assert any("adapter_config.json beside" in line for line in caplog.messages)
