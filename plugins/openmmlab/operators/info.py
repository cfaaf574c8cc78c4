"""What built the operators: nothing did."""


def get_compiler_version() -> str:
    """Return mmcv's own word for a compiler that there was not."""
    return "n/a"


def get_compiling_cuda_version() -> str:
    """Return mmcv's own word for a CUDA compiler that there was not."""
    return "n/a"
