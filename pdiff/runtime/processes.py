"""The processes of one run: which of them this is, what it has to do, and how they hand things to each other.

They talk over a group of their own that torch and mmengine do not know of, so that plugins, and the libraries that
these train with, see a single process. Only `training_group` makes torch's default group, for a data-parallel fit.
Where a run has one process, everything here is trivial.
"""

import atexit
import gc
import itertools
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.launchers import LAUNCHERS

T = TypeVar("T")
# One process may collect for days while the others wait; one that ends is noticed at once all the same.
LONGEST_WAIT = timedelta(days=7)
LONGEST_STEP = timedelta(minutes=30)  # of a data-parallel training, in which none does anything alone for long
SILENT = ("nccl",)  # backends that let the others wait for a process that is lost
SECONDS_TO_END = 5  # of the others, which an error of the first process ends
ENDS = "ends"
DONE, ENDED = 0, 1  # what a process says at the end of a block in which it is watched
RESUME = "The same command with --resume goes on."
LOST = f"run: lost one of its processes, or was told to end. {RESUME}"


@dataclass(frozen=True)
class Job:
    """The processes of a run.

    Attributes:
        rank: the number of this one.
        size: how many there are.
        local: the number of this one on its machine.
        store: what all of them read and write.
        group: over which they talk.
        watch: over which each learns in a thread that another is lost; only in a training that would not tell.
        trainings: numbers for their data-parallel trainings.
        pid: the process itself, not one that it forks.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    store: "dist.Store | None" = None
    group: "dist.ProcessGroupGloo | None" = None
    watch: "dist.ProcessGroupGloo | None" = None
    trainings: Iterator[int] = field(default_factory=itertools.count)
    pid: int = field(default_factory=os.getpid)


_joined: list[Job] = []  # as torch keeps its default group: a process is one of the same run's for all its life


def job() -> Job:
    """Return the processes of this run."""
    return _joined[0] if _joined else Job()


def rank() -> int:
    """Return the number of this process."""
    return job().rank


def size() -> int:
    """Return the number of processes."""
    return job().size


def is_main() -> bool:
    """Say whether this is the process that writes and speaks."""
    return rank() == 0


def share(count: int, number: int, parts: int) -> slice:
    """Return which of `count` things belong to part `number` of `parts`, all of nearly the same size.

    A single one belongs to the first, whose progress the user sees.
    """
    return slice(-(-count * number // parts), -(-count * (number + 1) // parts))


def own(count: int) -> slice:
    """Return which of `count` things this process has to do."""
    return share(count, rank(), size())


def join(launcher: str) -> None:
    """Become one of the processes that a launcher has started; `none`: the only one.

    mmengine's own `init_dist` is not used: it wants a GPU, and makes the default group.

    Raises:
        PdiffError: the launcher has not started this process, or has not said where the first one is, or the first
            one cannot be reached there.
    """
    if launcher == "none":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
            raise PdiffError("--launcher: got none, but torchrun has started several processes. Give pytorch.")
        return
    variables, command = LAUNCHERS[launcher]
    missing = [name for name in (*variables, "MASTER_ADDR") if name not in os.environ]
    if missing:
        what = "the name of the first process's machine" if missing[0] == "MASTER_ADDR" else f"as {command} sets it"
        raise PdiffError(f"--launcher: got {launcher!r}, but {missing[0]} is not set, expected {what}. Use {command}.")
    for name, value in ((name, os.environ[name]) for name in variables):
        if not value.isdigit():
            raise PdiffError(f"--launcher: got {name} {value!r}, expected a number, as {command} sets it.")
    number, count, local = (int(os.environ[name]) for name in variables)
    os.environ.setdefault("MASTER_PORT", "29500")
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        socket.getaddrinfo(host, port)  # torch itself would look for an unknown name for minutes
        store, _, _ = next(dist.rendezvous("env://", number, count))
        group = dist.ProcessGroupGloo(dist.PrefixStore("run", store), number, count, LONGEST_WAIT)
    except (OSError, ValueError, RuntimeError) as error:
        line = f"--launcher: got MASTER_ADDR {host!r} and MASTER_PORT {port!r}, expected the first process's machine"
        raise PdiffError(f"{line} and a free port there ({first_line(error)}). Give others.") from None
    _joined.append(Job(number, count, local, store, group))
    atexit.register(depart)
    signal.signal(signal.SIGTERM, end)  # what a launcher sends to the others when it has lost one


def leave() -> None:
    """Close the connections: a thread of theirs that frees a tensor while Python shuts down aborts the process."""
    _joined[0] = replace(job(), group=None)


def depart() -> None:
    """Leave when Python ends; at once where a training was cut short whose group would wait for the others here."""
    leave()
    if dist.is_initialized() and dist.get_backend() in SILENT:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)


def end(*_) -> None:
    """End this process at once; every file is whole at any moment. What it has forked ends without a word."""
    if os.getpid() == job().pid:
        say_once(f"error: {LOST}")
    os._exit(2)


def say_once(line: str) -> None:
    """Tell the user why the run ends, unless another process has: all of them end for the first one's reason."""
    if size() == 1 or first_to_end():
        print(line, file=sys.stderr, flush=True)
    if size() > 1 and is_main() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        see_others_end()


def first_to_end() -> bool:
    """Count this process among those that end, and say whether it is the first, as far as that can be known."""
    try:
        return job().store.add(ENDS, 1) == 1
    except RuntimeError:  # the process that keeps the store is lost
        return True


def see_others_end() -> None:
    """Close the connections, so that those who wait notice, and keep the store for them till they have ended."""
    leave()
    if job().watch is not None:
        tell_watchers(ENDED)
    if dist.is_initialized() and dist.get_backend() == "gloo":  # NCCL would wait for the others here
        dist.destroy_process_group()
        traceback.clear_frames(sys.exc_info()[2])  # of the training, which holds the group too
        gc.collect()
    end = time.monotonic() + SECONDS_TO_END
    while job().store.add(ENDS, 0) < size() and time.monotonic() < end:
        time.sleep(0.01)


def take_gpu(device: str) -> None:
    """Let `cuda` mean a GPU of this process: the only one that it sees, or that of its number on its machine.

    Raises:
        PdiffError: there are more processes than GPUs, or `device` is one certain GPU.
    """
    if size() == 1 or device == "cpu" or not torch.cuda.is_available():
        return
    if device not in ("auto", "cuda"):
        raise PdiffError(f"device: got {device!r} for {size()} processes, expected cuda, auto or cpu.")
    found = torch.cuda.device_count()
    number = 0 if found == 1 else job().local
    if number >= found:
        raise PdiffError(f"device: got {found} GPUs for at least {number + 1} processes. Start one for each GPU.")
    torch.cuda.set_device(number)


def gather(value: T) -> list[T]:
    """Return the values of all processes, in order; each waits for all others.

    Raises:
        PdiffError: one of them is lost.
    """
    if size() == 1:
        return [value]
    data = packed(value)
    lengths = [int(length) for length in _exchange(torch.tensor([len(data)]))]
    padded = torch.cat([data, torch.zeros(max(lengths) - len(data), dtype=torch.uint8)])
    return [unpacked(rows[:length]) for rows, length in zip(_exchange(padded), lengths, strict=True)]


def on_main(work: Callable[[], T]) -> T:
    """Do something in the first process alone, and return in each what came of it.

    Raises:
        PdiffError: a process is lost.
    """
    if size() == 1:
        return work()
    data = packed(work()) if is_main() else torch.empty(0, dtype=torch.uint8)
    length = torch.tensor([len(data)])
    _broadcast(length)
    received = data if is_main() else torch.empty(int(length), dtype=torch.uint8)
    _broadcast(received)
    return unpacked(received)


def packed(value: object) -> Tensor:
    """Return a value as bytes."""
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def unpacked(data: Tensor) -> object:
    """Return the value of some bytes, which a process of the same run packed."""
    return pickle.loads(data.numpy().tobytes())


def _exchange(tensor: Tensor) -> list[Tensor]:
    received = [torch.empty_like(tensor) for _ in range(size())]
    with lost_processes():
        job().group.allgather([received], [tensor]).wait()
    return received


def _broadcast(tensor: Tensor) -> None:
    with lost_processes():
        job().group.broadcast([tensor], dist.BroadcastOptions()).wait()


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; torch lets a stack follow."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def lost_processes() -> Iterator[None]:
    """Turn what torch raises in the block for a broken connection into the line that a process is lost.

    What a backend such as NCCL raises may have another reason, which the line then names.
    """
    try:
        yield
    except dist.DistBackendError as error:
        line = f"run: a process is lost, or cannot talk to the others ({first_line(error)}). {RESUME}"
        raise PdiffError(line) from None
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PdiffError(LOST) from None
        raise


def agree_on(device: torch.device) -> None:
    """Raise a `PdiffError` unless all processes compute on one type of device, and no two on one GPU."""
    if size() == 1:
        return
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
    check_places(gather((device.type, socket.gethostname(), gpu)))


def check_places(places: Sequence[tuple[str, str, str | None]]) -> None:
    """Raise a `PdiffError` for processes that would wait for each other, or stand in each other's way.

    Args:
        places: of each process the type of its device, its machine, and its GPU.
    """
    types, hosts, gpus = zip(*places, strict=True)
    if len(set(types)) > 1:
        firsts = sorted(types.index(kind) for kind in set(types))
        found = ", ".join(f"{types[number]} in process {number} on {hosts[number]}" for number in firsts)
        raise PdiffError(f"device: got {found}, expected one type. Mend the GPU that is missing, or give --device cpu.")
    for number, place in enumerate(places):
        if gpus[number] is not None and places.index(place) < number:
            line = f"device: got one GPU for the processes {places.index(place)} and {number} on {hosts[number]}"
            raise PdiffError(f"{line}, expected one for each. Start one for each GPU, or let each see another.")


@torch.no_grad()
def copy_from_main(*modules: nn.Module) -> None:
    """Give modules the weights that they have in the first process, tensor by tensor."""
    if size() == 1:
        return
    for tensor in (tensor for module in modules for tensor in module.state_dict().values()):
        data = tensor.cpu().contiguous()
        _broadcast(data.view(-1).view(torch.uint8))
        tensor.copy_(data)


@contextmanager
def watched(number: int) -> Iterator[None]:
    """End this process with a line when another is lost in the block, whatever this one waits for meanwhile.

    The first process and each of the others wait, in a thread, for a word that comes at the block's end: a connection
    that breaks before is that of a lost process.

    Args:
        number: of the block, the same in all processes.
    """
    store = dist.PrefixStore(f"watch {number}", job().store)
    group = dist.ProcessGroupGloo(store, rank(), size(), LONGEST_WAIT)
    over = threading.Event()

    def wait_for(peer: int) -> None:
        word = torch.full((1,), ENDED)
        with suppress(RuntimeError):
            group.recv([word], peer, 0).wait()
        if int(word) == ENDED and not over.is_set():
            end()

    threads = [threading.Thread(target=wait_for, args=(peer,), daemon=True) for peer in watchers()]
    for thread in threads:
        thread.start()
    _joined[0] = replace(job(), watch=group)
    try:
        yield
        tell_watchers(DONE)
        for thread in threads:
            thread.join()
        _joined[0] = replace(job(), watch=None)
    finally:
        over.set()


def watchers() -> Sequence[int]:
    """Return the processes that watch this one: the first watches all others, and they watch it."""
    return range(1, size()) if is_main() else [0]


def tell_watchers(word: int) -> None:
    """Send the processes that watch this one the word that they wait for; those that are lost need none."""
    for peer in watchers():
        with suppress(RuntimeError):
            job().watch.send([torch.tensor([word])], peer, 0).wait()


@contextmanager
def training_group(device: torch.device) -> Iterator[None]:
    """Make torch's default group of all processes inside the block: mmengine then trains data-parallel."""
    if size() == 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    number = next(job().trainings)
    store = dist.PrefixStore(f"training {number}", job().store)
    given = {"store": store, "rank": rank(), "world_size": size(), "timeout": LONGEST_STEP}
    with lost_processes(), watched(number) if backend in SILENT else nullcontext():
        dist.init_process_group(backend, **given)
        gather(None)  # else one that leaves the block at once would close what another is still opening
        yield
    # Only where all went well: else the others would learn of a lost process before this one has said why.
    dist.destroy_process_group()


@contextmanager
def hidden_group() -> Iterator[None]:
    """Hide torch's default group in the block, so that a plugin sees a single process in a training of several too.

    Losses of detectors for one take means over all processes of a group that they find.
    """
    group, dist.GroupMember.WORLD = dist.GroupMember.WORLD, None
    try:
        yield
    finally:
        dist.GroupMember.WORLD = group


def trainers() -> int:
    """Return how many processes share each batch of the training that goes on; 1 where this one trains alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_rows(count: int) -> slice:
    """Return which rows of a batch are this process's; all where it trains alone.

    Raises:
        PdiffError: there are fewer rows than processes.
    """
    if count < trainers():
        raise PdiffError(f"batch_size: got {count}, expected at least {trainers()}, one row for each process.")
    return share(count, dist.get_rank() if dist.is_initialized() else 0, trainers())


def weight(own: slice, count: int) -> float:
    """Return by what to multiply the mean over one's own rows, so that its mean over the processes is that over all."""
    return (own.stop - own.start) * trainers() / count
