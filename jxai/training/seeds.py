"""Many seeds at once: one compiled step updates the networks of several seeds, so that all cost one compilation.

Each network is trained by the step of a single one, on its own episodes, with its own key. Seeds are spread over
devices; of those of a device, `at_once` are computed together by `vmap`, one such group after another.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jxai.checks import check_count, shown
from jxai.errors import InputError, InputTypeError
from jxai.training.devices import AXIS, checked_devices, is_key
from jxai.training.state import TrainState
from jxai.training.step import Step
from jxai.training.types import Device, PyTree

_SEEDS = "seeds"
_OVER_SEEDS = PartitionSpec(_SEEDS)


class Stacked(NamedTuple):
    """What there is of each of many seeds, on the devices.

    Attributes:
        groups: trees with leaves (devices · at once, ...), computed one after another; the last seed is repeated to
            fill the last one.
        num_seeds: how many there are.
    """

    groups: tuple[PyTree, ...]
    num_seeds: int


@dataclasses.dataclass(frozen=True)
class SeedsStep:
    """A training step of many seeds at once; see `seeds_step`.

    Attributes:
        devices: those that the seeds are spread over.
        at_once: seeds that a device computes together.
        num_seeds: how many there may be.
        mesh: the devices with the axes of seeds and of a seed's own devices, of which there is one.
        call: the compiled function of states, batches and what they share.
        shared: what `prepare` gets beside a batch, on every device.
    """

    devices: tuple[Device, ...]
    at_once: int
    num_seeds: int
    mesh: Mesh
    call: Callable[..., Any]
    shared: PyTree
    num_processes = 1

    def place(self, states: Sequence[TrainState]) -> Stacked:
        """Puts states on the devices.

        Args:
            states: one a seed, as `TrainState.create` makes them; left intact.

        Returns:
            The states, for calls of this step.

        Raises:
            TypeError: other things than states.
            ValueError: none, more than the step is for, or states of other structures.
        """
        if not isinstance(states, Sequence) or not all(isinstance(state, TrainState) for state in states):
            raise InputTypeError(f"expected states, got {shown(states)}: see TrainState.create")
        return self._stacked(states)

    def __call__(self, states: Stacked, batches: Sequence[PyTree]) -> tuple[Stacked, Stacked]:
        """One update of every seed.

        Args:
            states: as `place` makes them; their buffers are donated, so they cannot be used afterwards.
            batches: one a seed, arrays (episodes, ...).

        Returns:
            The new states and the metrics.
        """
        dealt = self._stacked(batches)
        if dealt.num_seeds != states.num_seeds:
            raise InputError(f"expected {states.num_seeds} batches, got {dealt.num_seeds}: give one a seed")
        done = [self.call(*given, self.shared) for given in zip(states.groups, dealt.groups, strict=True)]
        groups, metrics = zip(*done, strict=True)
        return Stacked(groups, states.num_seeds), Stacked(metrics, states.num_seeds)

    def take(self, states: Stacked) -> list[TrainState]:
        """The state of each seed, a copy that survives the next call."""
        return _each(states, jnp.asarray)

    def numbers(self, metrics: Stacked) -> list[dict[str, float]]:
        """The metrics of each seed."""
        return _each(metrics, float)

    def check_number(self, count: int) -> int:
        """The number of seeds; a ValueError where this step is not for so many."""
        if not 0 < count <= self.num_seeds:
            raise InputError(f"expected 1 to {self.num_seeds} seeds, got {count}: make a step for as many")
        return count

    def _stacked(self, trees: Sequence[PyTree]) -> Stacked:
        count, size = self.check_number(len(trees)), len(self.devices) * self.at_once
        if len(kinds := {jax.tree.structure(tree) for tree in trees}) > 1:
            raise InputError(
                f"expected trees of one structure for all seeds, got {len(kinds)}: make them alike"
            )
        filled = [*trees, *[trees[-1]] * (-count % size)]
        groups = [filled[start : start + size] for start in range(0, len(filled), size)]
        return Stacked(tuple(jax.tree.map(self._put, *group) for group in groups), count)

    def _put(self, *leaves: Any) -> jax.Array:
        """Leaves of one group as an array (devices · at once, ...)."""
        if is_key(leaves[0]):
            data = self._put(*(jax.random.key_data(leaf) for leaf in leaves))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
        shapes = {np.shape(leaf) for leaf in leaves}
        if len(shapes) > 1:
            raise InputError(f"expected arrays of one shape for all seeds, got {shapes}: make them alike")
        host = np.stack([np.asarray(leaf) for leaf in leaves])
        return jax.device_put(host, NamedSharding(self.mesh, _OVER_SEEDS), may_alias=False)


def seeds_step(
    step: Step,
    *,
    num_seeds: int,
    at_once: int | None = None,
    prepare: Callable[[PyTree, PyTree], PyTree] | None = None,
    shared: PyTree = None,
    devices: Sequence[Device] | None = None,
) -> SeedsStep:
    """Makes one step of many seeds, each with its own state and its own episodes.

    Where a device computes one seed at once, each gets the numbers that it gets alone (to the bit on one CPU
    device). Where it computes several, sums have other orders: gradients agree to rounding, which Adam enlarges where
    a gradient is nothing but rounding, as that of a bias before a batch norm.

    Args:
        step: what `make_step` returned.
        num_seeds: how many seeds there are at most.
        at_once: how many of them a device computes together, at most; fewer take less memory. By default all on
            accelerators and one on a CPU, whose convolutions of several kernels at once are three times slower.
        prepare: `prepare(batch, shared) -> batch`, compiled with the step and applied to each seed's batch, such as
            `data.look_up`.
        shared: arrays that all seeds share, copied to each device once, such as the pictures of a domain.
        devices: this process's devices, over which the seeds are spread; all of them by default.

    Returns:
        The step, for `fit_seeds` and `train_seeds`.

    Raises:
        TypeError: no functions, or other things than arrays and devices.
        ValueError: a number below 1, or no device.
    """
    if not callable(step) or not (prepare is None or callable(prepare)):
        wrong = prepare if callable(step) else step
        raise InputTypeError(f"expected functions, got {shown(wrong)}: make a step with make_step")
    check_count("num_seeds", num_seeds)
    if at_once is None:
        at_once = 1 if jax.default_backend() == "cpu" else num_seeds
    check_count("at_once", at_once)
    used = (tuple(jax.local_devices()) if devices is None else checked_devices(devices))[:num_seeds]
    # Equal groups, as few as there must be: little is computed for nothing, and one program serves them all.
    num_groups = -(-num_seeds // (at_once * len(used)))
    at_once = -(-num_seeds // (num_groups * len(used)))

    mesh = Mesh(np.array(used).reshape(-1, 1), (_SEEDS, AXIS))

    def one(state: TrainState, batch: PyTree, shared: PyTree) -> tuple[TrainState, dict[str, jax.Array]]:
        given: Any = state, batch if prepare is None else prepare(batch, shared), AXIS
        return step(*given)

    def on_device(states: TrainState, batches: PyTree, shared: PyTree) -> Any:
        if at_once > 1:
            return jax.vmap(one, in_axes=(0, 0, None))(states, batches, shared)
        # Not even a vmap of one, and a mean over one device as in a pmapped step: it is the program of a seed alone.
        state, batch = jax.tree.map(lambda leaf: leaf[0], (states, batches))
        result = one(state, batch, shared)
        return jax.tree.map(lambda leaf: leaf[None], result)

    specs = _OVER_SEEDS, _OVER_SEEDS, PartitionSpec()
    mapped = jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=_OVER_SEEDS, check_vma=False)
    call = jax.jit(mapped, donate_argnums=0)
    # Copied, so that nothing that the caller changes or donates is used.
    everywhere = jax.tree.map(
        lambda leaf: jax.device_put(_array(leaf), NamedSharding(mesh, PartitionSpec()), may_alias=False),
        shared,
    )
    return SeedsStep(used, at_once, num_seeds, mesh, call, everywhere)


def train_seeds(
    step: SeedsStep, init: Callable[[int], TrainState], seeds: Sequence[int], data: PyTree
) -> TrainState:
    """Trains one network a seed: a pure function of seeds and data.

    Args:
        step: what `seeds_step` returned.
        init: from a seed to its state before the first step.
        seeds: different integers, at least one.
        data: arrays (seeds, steps, episodes, ...).

    Returns:
        The states after all steps, stacked: leaves (seeds, ...).

    Raises:
        TypeError: no such step or function, seeds that are no integers, or arrays of other things.
        ValueError: no seed, one twice, or data that do not fit them.
        MemoryError: so many at once do not fit into memory.
    """
    seeds = check_seeds(seeds)
    data = jax.tree.map(_array, data)
    if not isinstance(step, SeedsStep) or not callable(init):
        raise InputTypeError(
            f"expected a step of many seeds and a function, got {shown(step)} and {shown(init)}: see seeds_step"
        )
    leaves = jax.tree.leaves(data)
    leading = {np.shape(leaf)[:2] for leaf in leaves}
    if len(leading) != 1 or min(map(len, leading)) < 2 or (sizes := leading.pop())[0] != len(seeds):
        raise InputError(
            f"expected data (seeds, steps, episodes, ...) of {len(seeds)} seeds, got shapes "
            f"{[np.shape(leaf) for leaf in leaves]}: stack each seed's batches"
        )
    with bounded(step):
        states = step.place([init(seed) for seed in seeds])
        for number in range(sizes[1]):
            states, _ = step(states, [_entry(data, seed, number) for seed in range(len(seeds))])
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *step.take(states))


def check_seeds(seeds: Any) -> list[int]:
    """Checks the seeds of several trainings.

    Args:
        seeds: different integers of at least 0.

    Returns:
        The seeds.

    Raises:
        TypeError: no list of integers.
        ValueError: none, one twice (named), or one below 0.
    """
    if not isinstance(seeds, Sequence | np.ndarray) or isinstance(seeds, str):
        raise InputTypeError(f"expected seeds as a list of integers, got {shown(seeds)}: list them")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise InputTypeError(f"expected seeds as integers, got {shown(seed)}: list whole numbers")
    if not len(seeds):
        raise InputError("expected at least one seed, got none: list them")
    given = [int(seed) for seed in seeds]
    if min(given) < 0:
        raise InputError(f"expected seeds of at least 0, got {min(given)}: take others")
    if twice := sorted({seed for seed in given if given.count(seed) > 1}):
        raise InputError(
            f"expected different seeds, got {', '.join(map(str, twice))} more than once: a seed trains the same "
            "network each time, list it once"
        )
    return given


@contextlib.contextmanager
def bounded(step: SeedsStep) -> Iterator[None]:
    """Says how to need less memory where there is too little."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        less = (
            "train fewer seeds" if step.at_once == 1 else f"give `at_once` (--at-once) below {step.at_once}"
        )
        raise MemoryError(
            f"expected memory for {step.at_once} of {step.num_seeds} seeds at once on each device, got too little "
            f"({str(error).splitlines()[0][:200]}): {less}"
        ) from error


def _each(stacked: Stacked, convert: Callable[[np.ndarray], Any]) -> list[Any]:
    """The tree of each seed, its leaves converted from NumPy's."""

    def of_seeds(leaf: jax.Array) -> list[Any]:
        if is_key(leaf):
            impl = jax.random.key_impl(leaf)
            rows = _each(Stacked((jax.random.key_data(leaf),), leaf.size), jnp.asarray)
            return [jax.random.wrap_key_data(row, impl=impl) for row in rows]
        array = np.array(leaf)  # a copy: the buffer itself is donated to the next call
        return [convert(row) for row in array]

    found = []
    for group in stacked.groups:
        leaves, structure = jax.tree.flatten(group)
        found += [structure.unflatten(row) for row in zip(*map(of_seeds, leaves), strict=True)]
    return found[: stacked.num_seeds]


def _array(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind in "OSU":
        raise InputTypeError(f"expected arrays, got {shown(leaf)}: convert it, or leave it out")
    return array


def _entry(tree: PyTree, *at: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[at], tree)
