"""What a file is by its bytes, whatever its suffix says, and what to do about one that holds no state dict."""

import os
import tarfile
import zipfile
from pathlib import Path

from pdiff.runtime.errors import PdiffError

HEAD = 4096  # bytes that are looked at
LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save before 1.6 began with, after the protocol
AGAIN = "Copy or download it again."

# What a file begins with, what it is, and what to do.
BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file", "Fetch the file: git lfs pull."),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them", "Save the weights with torch.save or safetensors."),
    (
        b"\x93NUMPY",
        "an array of numpy",
        "Save tensors by name: torch.save({{name: torch.from_numpy(array)}}, 'new.pth').",
    ),
    (b"GGUF", "a GGUF file of llama.cpp", "Give the checkpoint that it was converted from."),
    (b"\x1f\x8b", "compressed (gzip)", "Unpack it: gunzip or tar -xzf."),
    (b"BZh", "compressed (bzip2)", "Unpack it."),
    (b"\xfd7zXZ\x00", "compressed (xz)", "Unpack it."),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "Unpack it."),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z)", "Unpack it."),
    (b"Rar!", "an archive (rar)", "Unpack it."),
    (b"\x89PNG", "an image", "Name checkpoints alone."),
    (b"\xff\xd8\xff", "an image", "Name checkpoints alone."),
    (b"%PDF", "a PDF", "Name checkpoints alone."),
    (b"\x7fELF", "a program", "Name checkpoints alone."),
)
# What is in a zip archive that torch.save did not write.
SCRIPT = (
    "a TorchScript archive. Turn it into a state dict: "
    "python -c \"import torch; torch.save(torch.jit.load('{path}', 'cpu').state_dict(), 'new.pth')\"."
)
EXPORTED = (
    "an archive of torch.export. Turn it into a state dict: "
    "python -c \"import torch; torch.save(dict(torch.export.load('{path}').state_dict), 'new.pth')\"."
)
RECORDS = (
    ("constants.pkl", SCRIPT),
    ("serialized_exported_program.json", EXPORTED),
    ("serialized_state_dict.json", EXPORTED),
    ("archive_format", EXPORTED),
    (
        ".data/extern_modules",
        "an archive of torch.package. Load the network where its code is, and save its state dict.",
    ),
    ("MAR-INF/MANIFEST.json", "an archive of TorchServe. Unpack it, and name the checkpoint in it."),
    ("model.weights.h5", "a network of Keras. Save the weights with torch.save or safetensors."),
)


def kind_of(path: Path) -> str:
    """Return which kind of checkpoint a file is: `zip`, `legacy` or `safetensors`.

    Raises:
        PdiffError: it is none, or cannot be read; the line says what it is, and what to do.
    """
    try:
        with open(path, "rb") as file:
            head, size = file.read(HEAD), file.seek(0, 2)
    except (OSError, ValueError) as error:  # ValueError: no name that a file can have
        raise PdiffError(f"{path}: {unreadable(path, error)}") from None
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return kind_of_zip(path)
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") and LEGACY in head[:32]:
        return "legacy"
    if len(head) > 8 and head[8:9] == b"{" and head[9:10] in b'"} ' and int.from_bytes(head[:8], "little") < 1 << 32:
        if int.from_bytes(head[:8], "little") + 8 > size:
            raise PdiffError(f"{path}: is a safetensors file that is cut short, or corrupt. {AGAIN}")
        return "safetensors"
    raise PdiffError(f"{path}: is {described(path, head, size)}")


def unreadable(path: Path, error: Exception) -> str:
    """Return why a file cannot be read."""
    if os.path.islink(path) and not os.path.exists(path):
        return f"is a link to {str(path.readlink())!r}, which is missing. Mend the link, or name another file."
    if os.path.isdir(path):
        names = ", ".join(sorted(found.name for found in path.iterdir())[:5])
        return f"is a folder, expected a file. Name one of those in it: {names or 'it is empty'}."
    return f"cannot be read ({getattr(error, 'strerror', error)}). It is missing, or may not be read."


def kind_of_zip(path: Path) -> str:
    """Return `zip` for an archive of `torch.save`; raise a `PdiffError` that says what another one is."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, UnicodeDecodeError):
        raise PdiffError(
            f"{path}: is a zip archive, as torch.save writes them, that is cut short, still written or corrupt. {AGAIN}"
        ) from None
    for record, what in RECORDS:
        if any(name == record or name.endswith(f"/{record}") for name in names):
            raise PdiffError(f"{path}: is {what.format(path=path)}")
    if any(name.endswith("/data.pkl") for name in names):
        return "zip"
    if names and all(name.endswith(".npy") for name in names):
        convert = "torch.save({name: torch.from_numpy(a) for name, a in numpy.load(file).items()}, 'new.pth')"
        raise PdiffError(f"{path}: is an archive of numpy's arrays. Turn them into a state dict: {convert}.")
    within = ", ".join(sorted(names)[:5]) or "nothing"
    raise PdiffError(f"{path}: is a zip archive with {within}. Unpack it, and name the checkpoint in it.")


def described(path: Path, head: bytes, size: int) -> str:
    """Return what a file is that is no checkpoint, with what to do."""
    if not head.strip(b"\0"):
        return f"{'empty' if not size else 'nothing but zeros'}. {AGAIN}"
    for beginning, what, todo in BEGINNINGS:
        if head.startswith(beginning):
            return f"{what}. {todo.format()}"
    if head[:1] == b"\x80" or head[:2] in (b"(d", b"(l", b"}q", b"ct", b"cc", b"ci"):
        return "a pickle, but none of torch.save. " + PICKLE.format(path=path)
    if head[257:262] == b"ustar" or is_old_tar(path):
        old = "a file of torch before 0.2. Load it with that version, and save it with a newer one."
        return old if is_old_tar(path) else "a tar archive. Unpack it, and name the checkpoint in it."
    if head[:1] == b"\x08" and (b"onnx" in head or b"pytorch" in head[:64]):
        return "a network of ONNX. Give the checkpoint that it was exported from."
    return text_or_data(head)


PICKLE = (
    "Where you trust it: python -c \"import pickle, torch; torch.save(pickle.load(open('{path}', 'rb')), 'new.pth')\"; "
    "arrays become tensors by torch.from_numpy."
)


def is_old_tar(path: Path) -> bool:
    """Say whether a file is a tar archive as torch wrote them before 0.2."""
    try:
        with tarfile.open(path, "r:") as archive:
            return {"pickle", "storages"} <= set(archive.getnames())
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return False


def text_or_data(head: bytes) -> str:
    """Return what a file is that begins like no known one."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<"):
        what = "a page of the web (HTML) or XML, which a download brought in place of the file"
        return f"{what}. Download it again, logged in if need be."
    if b'"weight_map"' in head:
        return "the index of a network in parts. Join the parts, and give the file that you get: " + JOIN
    if start[:1] in (b"{", b"["):
        return "JSON, no tensors. Name checkpoints alone."
    words = start[:512].decode("utf-8", "ignore")
    if len(words.encode()) > 0.9 * len(start[:512]) and all(
        letter.isprintable() or letter.isspace() for letter in words
    ):
        return f"text that begins with {words.splitlines()[0][:40]!r}. Name checkpoints alone."
    return f"damaged, or no checkpoint: it begins with {head[:8]!r}. {AGAIN}"


JOIN = (
    "torch.save({name: t for part in parts for name, t in torch.load(part).items()}, 'whole.pth'); "
    "safetensors.torch.load_file in place of torch.load for parts of that format."
)
