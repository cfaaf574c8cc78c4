"""mmengine's Runner, made to run inside a program: any device, several in one process, a quiet terminal."""

import copy
import itertools
import logging

import torch
from mmengine.dist import get_world_size
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner

_numbers = itertools.count()  # mmengine keeps runners by name for the life of the process
# Where the losses go: JSON lines, and events for TensorBoard.
LOGS = {"type": "Visualizer", "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]}


def megabytes_at_peak(device: torch.device) -> int:
    """Return the most memory that tensors had on a GPU, in MiB; 0 where the device is none."""
    return torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else 0


class QuietRunner(Runner):
    """mmengine's Runner on a device of our choice, its log in a file and only warnings on the terminal.

    Args:
        name: what is trained.
        device: where the model goes.
        settings: of mmengine's Runner.
    """

    def __init__(self, *, name: str, device: torch.device, **settings):
        self.device = device
        super().__init__(**settings, experiment_name=f"{name}_{next(_numbers)}")

    def wrap_model(self, model_wrapper_cfg, model):
        """Put the model on the chosen device; where torch has a group of several processes, train data-parallel."""
        model = model.to(self.device)
        if get_world_size() == 1:
            return model
        devices = None if self.device.type == "cpu" else [torch.cuda.current_device()]
        return MMDistributedDataParallel(model, device_ids=devices)

    def build_visualizer(self, visualizer=None):
        """Log for TensorBoard too, unless the settings name other places."""
        return super().build_visualizer(copy.deepcopy(LOGS) if visualizer is None else visualizer)

    def build_logger(self, log_level="INFO", log_file=None, **kwargs):
        """Keep the terminal for the progress bar."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)
        return logger

    def build_log_processor(self, log_processor):
        """Log the peak of a GPU's memory without setting it back, as mmengine would, or waiting for the GPU."""
        found = super().build_log_processor(log_processor)
        found._get_max_memory = lambda runner: megabytes_at_peak(runner.device)
        return found

    def close_log(self) -> None:
        """Close the log file: mmengine leaves it open for the life of the process."""
        for handler in [h for h in self.logger.handlers if isinstance(h, logging.FileHandler)]:
            handler.close()
            self.logger.removeHandler(handler)
