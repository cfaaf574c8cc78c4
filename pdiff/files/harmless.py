"""Classes whose objects stand beside the weights in checkpoints: settings, logs, dates, states of generators.

None of them is ever imported or built; a name that is not here makes a file be refused, as a network that was pickled
whole must be, and whatever would run code.
"""

import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

HARMLESS = re.compile(
    r"""
    builtins\.(set|frozenset|slice|range|complex|bytearray|bytes|list|dict|tuple|object|int|float|str|bool|type
        |Ellipsis|NotImplemented|[A-Z]\w*(Error|Exception|Warning))
    | copyreg\.(_reconstructor|__newobj__|__newobj_ex__)
    | _codecs\.encode | _io\.(BytesIO|StringIO)
    | collections\.(OrderedDict|defaultdict|deque|Counter|ChainMap|UserDict|UserList|UserString)
    | argparse\.Namespace | types\.SimpleNamespace | functools\.partial | itertools\.(count|cycle|repeat)
    | (pathlib|pathlib\._local)\.(Path|PurePath|PosixPath|PurePosixPath|WindowsPath|PureWindowsPath)
    | (datetime|_datetime)\.(date|datetime|time|timedelta|timezone|tzinfo) | zoneinfo\.ZoneInfo(\._unpickle)?
    | (decimal|_decimal)\.Decimal | fractions\.Fraction | uuid\.(UUID|SafeUUID) | array\.(array|_array_reconstructor)
    | random\.Random | logging\.(Logger|RootLogger|getLogger) | typing\.\w+ | enum\.(Enum|IntEnum|StrEnum|Flag|IntFlag)
    | numpy\.(ndarray|dtype|(bool|int|uint|float|complex|str|bytes|void|object|datetime|timedelta)\w*|number|generic)
    | numpy\.(core|_core)\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer) | numpy\.dtypes\.\w+
    | numpy\.ma\.(core\.)?\w+ | numpy\.random\.(_pickle\.\w+|mtrand\.RandomState|bit_generator\.\w+|_\w+\.\w+)
    | pandas\._libs\.(tslibs\.\w+\.\w+|internals\.\w+)
    | pandas\.core\.(frame|series|internals|indexes|dtypes|arrays)(\.[a-z_]+)?\.(_new_\w+|_unpickle\w*|[A-Z]\w*)
    | omegaconf(\.[a-z_]+)?\.[A-Z]\w* | ml_collections\.config_dict(\.config_dict)?\.\w+
    | addict\.(addict\.)?Dict | easydict\.EasyDict | (box|munch|attrdict|dotmap)(\.[a-z_]+)?\.[A-Z]\w*
    | (yacs|fvcore\.common|detectron2\.config|iopath\.common)(\.config)?\.[A-Z]\w*
    | mmengine\.config(\.[a-z_]+)?\.[A-Z]\w* | mmcv\.utils\.config\.[A-Z]\w*
    | mmengine\.logging\.history_buffer\.HistoryBuffer(\.\w+)?
    | (pytorch_lightning|lightning|lightning\.pytorch|lightning\.fabric|lightning_fabric|lightning_utilities)
        \.(callbacks|utilities|core)(\.[a-z_]+)*\.[A-Z]\w*
    | transformers\.(trainer_utils|trainer_callback|training_args|configuration_utils)\.\w+
    | transformers\.models\.\w+\.configuration_\w+\.\w+
    | torch\.(device|Size|layout|dtype|strided|sparse_\w+|per_\w+_affine\w*|Generator)
    | torch\.(_utils\.torch\.)?(memory_format|channels_last\w*|\w+_format)
    | torch\.serialization\._get_layout | torch\.nn\.parameter\.(Parameter|Buffer) | torch\.(_tensor\.)?Tensor
    | torch\.optim\.(\w+\.)?[A-Z]\w* | torch\.nn\.modules\.loss\.\w+ | torch\.(cuda\.)?amp\.grad_scaler\.\w+
    """,
    re.VERBOSE,
)


def present_name(module: str, name: str) -> str:
    """Return the dotted name that Python 3 has for what a pickle, of Python 2 as well, calls `module` and `name`."""
    module, name = NAME_MAPPING.get((module, name), (module, name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def is_harmless(name: str) -> bool:
    """Say whether objects of a class, or results of a function, are left out of what is read without a word."""
    return HARMLESS.fullmatch(name) is not None
