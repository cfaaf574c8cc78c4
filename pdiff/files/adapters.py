"""The format `peft`: adapters as the library peft writes them, in and out.

A folder holds `adapter_config.json` beside `adapter_model.safetensors` or `adapter_model.bin`. The names in these are
not those of the network: peft leaves the adapter's own name out (`lora_A.weight` for `lora_A.default.weight`).
"""

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pdiff.files.archives import read_content
from pdiff.files.formats import FORMATS, Zoo, flattened, renamed
from pdiff.files.nesting import tensors
from pdiff.files.paths import below_common_folder, folders_of
from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json, write_json, write_tensors

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@FORMATS.register_module(name="peft")
def peft(pattern: str, reader: Reader) -> Zoo:
    """Find adapters; columns are the numbers and texts of their `adapter_config.json`.

    Args:
        pattern: the folder of an adapter, one that has such below it, or a glob of them.
        reader: of the files; a network that is none of peft's has names of its own: `checkpoints.rename`.
    """
    paths = [path for folder in folders_of(pattern) for path in [weights_of(folder)] if path]
    if not paths:
        expected = f"expected folders with {CONFIG} and {' or '.join(WEIGHTS)}"
        raise PdiffError(f"checkpoints.files: got {pattern!r}, {expected}. Check the path.")
    configs = [dict(flattened(read_json(path.with_name(CONFIG)))) for path in paths]
    columns = dict.fromkeys(name for config in configs for name in config)
    adapters = Adapters(reader)
    return Zoo(
        origins=below_common_folder(paths),
        read=lambda number, *wanted: adapters.read(paths[number], *wanted),
        columns={name: [config.get(name) for config in configs] for name in columns},
        kept={"config": read_json(paths[0].with_name(CONFIG)), "names": adapters.names_in(paths[0])},
    )


def weights_of(folder: Path) -> Path | None:
    """Return the file with the weights of an adapter; None for a folder that holds no adapter."""
    if not (folder / CONFIG).is_file():
        return None
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


class Adapters:
    """Reads adapters into a network: into one of peft by the names that peft gives them in files.

    Args:
        reader: of files with the network's own names.
    """

    def __init__(self, reader: Reader):
        self.rename, self.plain = reader.rename, reader
        self.tensors = own_tensors(reader.model)
        self.own = {theirs: name for theirs, (name, _) in self.tensors.items()}
        self.theirs = {name: theirs for theirs, name in self.own.items()}
        if self.own:
            saved = module_of({theirs: tensor for theirs, (_, tensor) in self.tensors.items()})
            reader = Reader(saved, reader.where, reader.key, reader.prefix, reader.rename, reader.cast)
        self.reader = reader

    def read(self, path: Path, names: Iterable[str] | None = None, otherwise: str = "") -> dict[str, Tensor]:
        """Return the tensors of a file by the network's names; see `Reader.read`."""
        theirs = None if names is None else [self.theirs.get(name, name) for name in names]
        return {self.own.get(name, name): tensor for name, tensor in self.reader.read(path, theirs, otherwise).items()}

    def read_either(self, path: Path, *wanted) -> dict[str, Tensor]:
        """Return the tensors of a file with the names that peft gives them, or of one with the network's own."""
        if self.own:
            with suppress(PdiffError):  # which the network's own names may spare
                found = self.read(path, *wanted)
                if found:
                    return found
        return self.plain.read(path, *wanted)

    def names_in(self, path: Path) -> dict[str, str]:
        """Return the network's name of each tensor by its name in a file."""
        begins, found = self.reader.prefix, self.reader.find(path).placed
        written = {renamed(one.path.removeprefix(begins), self.rename): one.path for one in tensors(read_content(path))}
        return {written[one.path]: self.own.get(name, name) for name, one in found.items()}


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
    write_json(folder / CONFIG, kept["config"])
