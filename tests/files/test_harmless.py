"""Which classes are left out without a word."""

import pytest

from pdiff.files.harmless import is_harmless, present_name

HARMLESS = [
    "argparse.Namespace",
    "types.SimpleNamespace",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "collections.defaultdict",
    "datetime.datetime",
    "typing.Any",
    "_io.BytesIO",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtypes.Float32DType",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.nodes.AnyNode",
    "addict.addict.Dict",
    "yacs.config.CfgNode",
    "easydict.EasyDict",
    "box.box.Box",
    "munch.Munch",
    "ml_collections.config_dict.config_dict.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmcv.utils.config.ConfigDict",
    "pandas._libs.tslibs.timestamps._unpickle_timestamp",
    "pandas.core.internals.managers.BlockManager",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "torch.device",
    "torch.optim.adamw.AdamW",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.nn.modules.loss.CrossEntropyLoss",
]
UNKNOWN = [
    "os.system",
    "builtins.eval",
    "builtins.getattr",
    "builtins.open",
    "pathlib.os.system",
    "numpy.load",
    "omegaconf.os.system",
    "mmengine.config.config.os.system",
    "torch.load",
    "torch.optim.os.system",
    "torch.hub.load",
    "torch.nn.modules.linear.Linear",
    "collections.OrderedDict.fromkeys",
    "functools.reduce",
    "logging.config.dictConfig",
    "pandas.read_pickle",
    "__main__.Config",
]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_stands_beside_weights_is_harmless(name):
    assert is_harmless(name)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_runs_code_and_what_is_unknown_is_not(name):
    assert not is_harmless(name)


def test_names_of_python_2_are_those_of_python_3():
    assert present_name("__builtin__", "xrange") == "builtins.range"
    assert present_name("copy_reg", "_reconstructor") == "copyreg._reconstructor"
    assert present_name("os", "system") == "os.system"
