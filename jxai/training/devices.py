"""Spreading a training step over devices: the one place that knows of `jax.pmap`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jxai.checks import check_count, shown
from jxai.errors import InputError, InputTypeError
from jxai.training.state import TrainState
from jxai.training.step import Step
from jxai.training.types import Device, PyTree

AXIS = "devices"


@dataclasses.dataclass(frozen=True)
class PmappedStep:
    """A training step that runs on several devices at once; see `pmap_step`.

    Attributes:
        devices: this process's devices, in the order of the leading axis of state and batches.
        num_processes: how many processes the update is spread over.
        call: the pmapped function.
    """

    devices: tuple[Device, ...]
    num_processes: int
    call: Callable[..., Any]

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update.

        Args:
            state: as `replicate` makes it; its buffers are donated, so it cannot be used afterwards.
            batch: as `shard` makes it, (devices, episodes a device, ...).

        Returns:
            The new replicated state and the metrics, (devices,) each, equal on all devices.
        """
        return self.call(state, batch)


def pmap_step(step: Step, *, devices: Sequence[Device] | None = None) -> PmappedStep:
    """Runs `step` on every device, each with its share of the episodes.

    Args:
        step: what `make_step` returned.
        devices: the devices of **all** processes, in the same order on each; all there are by default.

    Returns:
        The step on replicated states and sharded batches.

    Raises:
        TypeError: no function, or other things than devices.
        ValueError: no device.
    """
    if not callable(step):
        raise InputTypeError(f"expected a step, got {shown(step)}: make one with make_step")
    everywhere = tuple(jax.devices()) if devices is None else checked_devices(devices)
    local = tuple(device for device in everywhere if device.process_index == jax.process_index())

    def on_each_device(state: TrainState, batch: PyTree) -> tuple[TrainState, dict[str, jax.Array]]:
        return step(state, batch, AXIS)

    # Without `devices` pmap takes them all in its own order; naming them only where asked keeps that.
    call = jax.pmap(on_each_device, axis_name=AXIS, devices=devices, donate_argnums=0)
    num_processes = len({device.process_index for device in everywhere})
    return PmappedStep(devices=local, num_processes=num_processes, call=call)


def replicate(tree: PyTree, *, devices: Sequence[Device] | None = None) -> PyTree:
    """A copy of every array on every device.

    Args:
        tree: arrays of any shape, typed random keys among them.
        devices: this process's devices; all of them by default.

    Returns:
        The tree with leaves (devices, ...). They share no memory with `tree`: donating them is safe.

    Raises:
        TypeError: a leaf is no array or number, or other things than devices.
        ValueError: no device.
    """
    devices = jax.local_devices() if devices is None else checked_devices(devices)
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))

    def put(leaf: Any) -> jax.Array:
        if is_key(leaf):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        if host.dtype.kind in "OSU":
            raise InputTypeError(
                f"expected arrays and numbers, got {shown(leaf)}: convert it, or leave it out"
            )
        return jax.device_put(np.broadcast_to(host, (len(devices), *host.shape)), sharding, may_alias=False)

    return jax.tree.map(put, tree)


def unreplicate(tree: PyTree) -> PyTree:
    """The first device's copy of a replicated tree.

    Args:
        tree: arrays (devices, ...), the same on all devices.

    Returns:
        The tree with leaves (...), on this process's first device; a copy that survives donation of `tree`.

    Raises:
        TypeError: a leaf is no array (devices, ...).
    """

    def first(leaf: Any) -> jax.Array:
        if not isinstance(leaf, jax.Array) or not leaf.ndim:
            raise InputTypeError(f"expected arrays (devices, ...), got {shown(leaf)}: see replicate")
        # `leaf[0]` of the sharded array itself would be a computation over all devices.
        return leaf.addressable_data(0)[0]

    return jax.tree.map(first, tree)


def shard(batch: PyTree, num_devices: int) -> PyTree:
    """Deals a batch out to devices: the first gets the first episodes, and so on.

    Args:
        batch: arrays (episodes, ...).
        num_devices: number of this process's devices.

    Returns:
        The tree with leaves (num_devices, episodes / num_devices, ...).

    Raises:
        TypeError: something else than arrays.
        ValueError: an array's leading axis is not divisible by the number of devices, which is at least 1.
    """
    num_devices = check_count("num_devices", num_devices)

    def deal(leaf: Any) -> Any:
        if not hasattr(leaf, "reshape"):
            raise InputTypeError(f"expected arrays in a batch, got {shown(leaf)}: convert it")
        episodes = leaf.shape[0] if leaf.ndim else 0
        if episodes == 0 or episodes % num_devices:
            raise InputError(
                f"expected a batch of episodes divisible by {num_devices} devices, "
                f"got an array of shape {leaf.shape}: "
                f"use a multiple of {num_devices} episodes a step, or fewer devices"
            )
        return leaf.reshape(num_devices, episodes // num_devices, *leaf.shape[1:])

    return jax.tree.map(deal, batch)


def checked_devices(devices: Any) -> tuple[Device, ...]:
    """The devices; errors as `replicate`'s where they are none."""
    if not isinstance(devices, Sequence | np.ndarray) or not all(isinstance(d, jax.Device) for d in devices):
        raise InputTypeError(f"expected devices, got {shown(devices)}: choose some of jax.devices()")
    if not len(devices):
        raise InputError("expected at least 1 device, got none: leave `devices` out for all of them")
    return tuple(devices)


def is_key(leaf: Any) -> bool:
    """Whether it is an array of typed random keys."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
