"""A program that calls back, turned into an iterator: mmengine's Runner pushes, pdiff's stages pull."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


class Cancelled(BaseException):
    """Nobody wants what the program still has to say. No `Exception`, so that nothing catches it."""


def stream(program: Callable[[Callable[[T | None], None]], None]) -> Iterator[T]:
    """Yield what `program` hands to the function it is called with.

    The program runs in a thread of its own and stands still while the caller works on an item, so never do both
    run at once. When the caller stops early, the program's next call raises `Cancelled`; handing over None
    yields nothing and is a chance to do so.

    Raises:
        Exception: what the program raises.
    """
    items: queue.Queue = queue.Queue()
    wanted = threading.Semaphore(0)
    cancelled = threading.Event()
    done = object()
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def emit(item: T | None) -> None:
        if cancelled.is_set():
            raise Cancelled
        if item is None:
            return
        items.put((item, None))
        wanted.acquire()
        if cancelled.is_set():
            raise Cancelled

    def run() -> None:
        try:
            if gpu is not None:
                torch.cuda.set_device(gpu)  # torch's current GPU is one for each thread
            program(emit)
            items.put((done, None))
        except BaseException as error:
            items.put((done, error))

    thread = threading.Thread(target=run, name="pdiff-collect", daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
            wanted.release()
    finally:
        cancelled.set()
        wanted.release()
        thread.join()
