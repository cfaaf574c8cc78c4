"""The format `files`: one state dict in each file."""

from pdiff.files.finding import distinct, find_checkpoints
from pdiff.files.formats import FORMATS, Zoo
from pdiff.files.paths import below_common_folder
from pdiff.files.reader import Reader


@FORMATS.register_module(name="files")
def files(pattern: str, reader: Reader) -> Zoo:
    """Find a network in each file, a checkpoint of `torch.save` or safetensors; those with the same tensors count once.

    Args:
        pattern: a file, folder or glob.
        reader: of the files.
    """
    paths = distinct(find_checkpoints(pattern), reader)
    return Zoo(below_common_folder(paths), lambda number, *wanted: reader.read(paths[number], *wanted))
