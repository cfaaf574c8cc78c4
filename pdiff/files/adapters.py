"""The format `peft`: adapters as the library peft writes them, in and out.

A folder holds `adapter_config.json` beside `adapter_model.safetensors` or `adapter_model.bin`. The names in these are
not those of the network: peft leaves the adapter's own name out (`lora_A.weight` for `lora_A.default.weight`).
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pdiff.files.folders import ADAPTER, flattened, folders_of, object_in
from pdiff.files.formats import FORMATS, Zoo
from pdiff.files.naming import listed
from pdiff.files.paths import below_common_folder
from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import say
from pdiff.runtime.storage import write_json, write_tensors

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@FORMATS.register_module(name="peft")
def peft(pattern: str, reader: Reader) -> Zoo:
    """Find adapters; columns are the numbers and texts of their `adapter_config.json`.

    Args:
        pattern: the folder of an adapter, one that has such below it, or a glob of them.
        reader: of the files; a network that is none of peft's has names of its own: `checkpoints.rename`.
    """
    found = [path for folder in folders_of(pattern) for path in [weights_of(folder)] if path]
    paths = [path for path in found if path.with_name(ADAPTER).is_file()]
    if not paths:
        expected = f"expected folders with {ADAPTER} and {' or '.join(WEIGHTS)}"
        raise PdiffError(f"checkpoints.files: got {pattern!r}, {expected}. Check the path.")
    if len(paths) < len(found):
        without = [path for path in found if path not in paths]
        say(f"checkpoints: left out {listed(below_common_folder(without))}, with no {ADAPTER} beside")
    told = [told_by(path.with_name(ADAPTER)) for path in paths]
    configs = [dict(flattened(config)) for config in told]
    columns = dict.fromkeys(name for config in configs for name in config)
    adapters = Adapters(reader)
    return Zoo(
        origins=below_common_folder(paths),
        read=lambda number, *wanted: adapters.read(paths[number], *wanted),
        columns={name: [config.get(name) for config in configs] for name in columns},
        kept={"config": told[0], "names": adapters.names_in(paths[0])},
    )


def told_by(path: Path) -> dict[str, Any]:
    """Return what the settings of an adapter are."""
    try:
        return object_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PdiffError(f"{path}: is no JSON object of settings ({error}). Copy or download it again.") from None


def weights_of(folder: Path) -> Path | None:
    """Return the file with the weights of an adapter; None for a folder that holds none."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


class Adapters:
    """Reads adapters into a network: into one of peft by the names that peft gives its tensors in files.

    Args:
        reader: of files with the network's own names.
    """

    def __init__(self, reader: Reader):
        own = own_tensors(reader.model)
        self.theirs = {name: theirs for theirs, (name, _) in own.items()}
        if own:
            saved = module_of({theirs: tensor for theirs, (_, tensor) in own.items()})
            reader = Reader(saved, reader.where, reader.key, reader.prefix, reader.rename, reader.cast)
        self.reader = reader

    def read(self, path: Path, names: Sequence[str], otherwise: str) -> dict[str, Tensor]:
        """Return tensors of a file by the network's names; see `Reader.read`."""
        if not self.theirs:
            return self.reader.read(path, names, otherwise)
        others = [name for name in names if name not in self.theirs]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise PdiffError(f"{path}: lacks {others[0]!r}{more}, which peft leaves out of adapters. {otherwise}")
        found = self.reader.read(path, [self.theirs[name] for name in names], otherwise)
        return {name: found[self.theirs[name]] for name in names}

    def names_in(self, path: Path) -> dict[str, str]:
        """Return the network's name of each tensor by its name in a file."""
        own = {theirs: name for name, theirs in self.theirs.items()}
        return {one.origin: own.get(name, name) for name, one in self.reader.find(path).placed.items()}


def own_tensors(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Return name and values of each of a network's tensors that peft would save, by the name that it has in a file."""
    if "peft" not in sys.modules:  # which has then made no part of the network
        return {}
    from peft import PeftModel, get_peft_model_state_dict

    found = {}
    own = {tensor.data_ptr(): name for name, tensor in model.state_dict().items() if tensor.numel()}
    for module in model.modules():
        if isinstance(module, PeftModel):
            saved = get_peft_model_state_dict(
                module, adapter_name=module.active_adapter, save_embedding_layers=False
            )  # True or "auto" would look the base network up in the web
            found |= {name: (own[t.data_ptr()], t) for name, t in saved.items() if t.data_ptr() in own}
    return found


def module_of(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a module whose state dict has these names, and holds these tensors."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        parent = root
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent._modules[part]
        parent.register_buffer(last, tensor)
    return root


def write_adapter(folder: Path, kept: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write an adapter for `peft.PeftModel.from_pretrained`.

    Args:
        folder: where it goes.
        kept: `config` of an adapter like it, and `names` of the network's tensors by those in the file.
        state: the tensors of the network.
    """
    write_tensors(folder / WEIGHTS[0], {theirs: state[own] for theirs, own in kept["names"].items()}, {"format": "pt"})
    write_json(folder / ADAPTER, kept["config"])
