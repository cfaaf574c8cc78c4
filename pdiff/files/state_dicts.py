"""The format `files`: one state dict in each file."""

from pdiff.files.adapters import Adapters
from pdiff.files.formats import FORMATS, Zoo, below_common_folder
from pdiff.files.reader import Reader
from pdiff.weights.checkpoints import find_checkpoints


@FORMATS.register_module(name="files")
def files(pattern: str, reader: Reader) -> Zoo:
    """Find a network in each file: a checkpoint of `torch.save`, or safetensors.

    Args:
        pattern: a file, folder or glob.
        reader: of the files.
    """
    paths = find_checkpoints(pattern)
    read = Adapters(reader).read_either
    return Zoo(below_common_folder(paths), lambda number: read(paths[number]))
