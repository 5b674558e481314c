"""PyTorch on the device that is measured: CUDA where there is one.

Needs torch, which jxai does not; whoever needs it imports this module, no other does.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]


def name() -> str:
    """The device of rivals' tensors."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def use(*, tensor_float: bool) -> None:
    """Choose the precision of float32 products, and the fastest convolutions, as XLA does.

    Args:
        tensor_float: allow TensorFloat-32 to products and convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tensor_float
    torch.backends.cudnn.benchmark = True


def finished(function: Callable) -> Callable:
    """The function, back only when the device is done."""

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        value = function(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return value

    return run


def peak(function: Callable[[], Any]) -> float | None:
    """Bytes that PyTorch holds at most while the function runs, all that is alive included; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    finished(function)()
    return float(torch.cuda.max_memory_allocated())
