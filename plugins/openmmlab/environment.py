"""What mmengine's Runner sets for the whole process from a config's `env_cfg`, and only its training is to feel."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch


@contextmanager
def environment_kept() -> Iterator[None]:
    """Put back, behind a training, cuDNN's choice of kernels, how processes begin, and the threads of OpenCV.

    So what comes after it in the process does what it does in one that only goes on there.
    """
    cudnn = torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    method, threads = multiprocessing.get_start_method(allow_none=True), cv2.getNumThreads()
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = flags
        multiprocessing.set_start_method(method, force=True)
        cv2.setNumThreads(threads)
