"""What the sections share: one precision for both frameworks, programs with their compile times, and memory."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

Precision = Literal["float32", "device's default"]
PRECISIONS: tuple[Precision, ...] = ("float32", "device's default")


def use(precision: Precision) -> Precision:
    """Choose the precision of float32 products in JAX and, if it is there, in PyTorch.

    Args:
        precision: all bits, or what JAX does by default on the device: TensorFloat-32 on NVIDIA's from Ampere on, in
            convolutions and matrix products, which PyTorch is then allowed too.

    Returns:
        The same.
    """
    jax.config.update("jax_default_matmul_precision", "highest" if precision == "float32" else None)
    if importlib.util.find_spec("torch") is not None:
        from experiments.benchmarks import torch_device

        torch_device.use(tensor_float=precision != "float32")
    return precision


class Program:
    """A function compiled for its arguments, which are on the device.

    Attributes:
        compile_seconds: of tracing and compilation.
        bytes: what it holds at once: arguments, results and what is in between, as XLA says; None where it does not.
    """

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self._arguments = jax.device_put(arguments)
        start = time.perf_counter()
        self._program = jax.jit(function).lower(*self._arguments).compile()
        self.compile_seconds = time.perf_counter() - start
        memory = self._program.memory_analysis()
        self.bytes = None
        if memory is not None:
            held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
            self.bytes = float(held)

    def __call__(self) -> Any:
        """Run it."""
        return self._program(*self._arguments)


def device_peak() -> float | None:
    """Bytes that JAX held at most in this process so far, of all programs; None where the device does not say."""
    statistics = jax.devices()[0].memory_stats()
    return None if statistics is None else float(statistics["peak_bytes_in_use"])


def apart(found: Any, reference: Any) -> float:
    """1 - cosine of two arrays, without the cancellation that the cosine itself would have."""
    one, other = (np.asarray(a, np.float64).ravel() for a in (found, reference))
    return float(((one / np.linalg.norm(one) - other / np.linalg.norm(other)) ** 2).sum() / 2)


def largest_error(found: Any, reference: Any) -> float:
    """The largest difference of two arrays over the largest absolute value of the second."""
    one, other = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    return float(np.abs(one - other).max() / np.abs(other).max())
