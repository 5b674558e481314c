"""The update: one optimizer step on the mean loss of a batch of episodes, as a pure function."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import jaxpr_as_fun

from jxai.errors import InputError
from jxai.training.state import TrainState
from jxai.training.types import LossFn, PyTree

Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def make_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, *, deterministic: bool = False
) -> Step:
    """The training step of a loss, for one device or for each of several.

    The step's loss is the mean over all episodes of all devices; new batch statistics and metrics are
    averaged alike. Every episode is handled alone: batch norms see one episode, and its key is
    `fold_in(state.key, n)` with n the episode's number in the whole training, so neither depends on how
    episodes are spread over devices.

    Args:
        loss_fn: `loss_fn(variables, episode, key, step) -> (loss, (new_batch_stats, metrics))` of **one** episode
            (or one classification batch): `variables` as `TrainState.variables`, `step` the updates made so far,
            `loss` a scalar, `new_batch_stats` with the structure of "batch_stats", `metrics` a dict of scalars.
        optimizer: the Optax optimizer the state was created with.
        deterministic: whether parameters shall be bit-identical for every number of devices on a CPU where XLA
            has as many threads. Those are as many as cores, or as `PJRT_NPROC` in the environment says before JAX
            computes anything, and no fewer than devices. The episodes of a device then run one after another, and
            every device holds one gradient an episode of the whole batch: slower and larger, for tests and for
            debugging. Otherwise they run together (vmap), and gradients agree to rounding.

    Returns:
        `step(state, episodes, axis_name=None) -> (state, metrics)`; `episodes` has a leading axis, this
        device's share (the same size on every device). `axis_name` is that of the mapped axis over devices,
        None on a single device. The metrics are those of `loss_fn`, "loss" and "grad_norm" (Euclidean norm of
        the mean gradient).
    """
    mean_gradient = _in_fixed_order if deterministic else _together

    def step(
        state: TrainState, episodes: PyTree, axis_name: str | None = None
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        keys = _episode_keys(state, episodes, axis_name)
        grads, (loss, batch_stats, metrics) = mean_gradient(loss_fn, state, episodes, keys, axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=jax.tree.map(lambda new, old: new.astype(old.dtype), batch_stats, state.batch_stats),
            opt_state=opt_state,
        )
        return new_state, {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}

    return step


def _episode_keys(state: TrainState, episodes: PyTree, axis_name: str | None) -> jax.Array:
    """Keys (episodes of this device,): the run's key with each episode's number in the training folded in."""
    leaves = jax.tree.leaves(episodes)
    counts = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(counts) != 1 or None in counts:
        shapes = [leaf.shape for leaf in leaves]
        raise InputError(
            f"expected arrays with one leading axis (episodes of this device), got shapes {shapes}: "
            "batch the episodes along axis 0"
        )
    share = leaves[0].shape[0]
    device, num_devices = (
        (0, 1) if axis_name is None else (jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name))
    )
    first = (state.step * num_devices + device) * share
    numbers = (first + jnp.arange(share)).astype(jnp.uint32)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(state.key, numbers)


def _loss_of(loss_fn: LossFn, batch_stats: PyTree, step: jax.Array) -> Callable[..., Any]:
    """`loss_fn` as a function of the parameters first, which is what is differentiated."""

    def loss(params: PyTree, episode: PyTree, key: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": batch_stats}
        value, (new_stats, metrics) = loss_fn(variables, episode, key, step)
        return value, (value, new_stats, metrics)

    return loss


def _mean(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), tree)


def _together(
    loss_fn: LossFn, state: TrainState, episodes: PyTree, keys: jax.Array, axis_name: str | None
) -> tuple[PyTree, Any]:
    """Mean gradient and mean (loss, batch statistics, metrics); a device's episodes at once."""
    one = _loss_of(loss_fn, state.batch_stats, state.step)

    # The mean is differentiated, not the episodes one by one: no gradient an episode is ever held.
    def mean_loss(params: PyTree) -> tuple[jax.Array, Any]:
        losses, aux = jax.vmap(one, in_axes=(None, 0, 0))(params, episodes, keys)
        return jnp.mean(losses), _mean(aux)

    result = jax.grad(mean_loss, has_aux=True)(state.params)
    return result if axis_name is None else jax.lax.pmean(result, axis_name)


def _in_fixed_order(
    loss_fn: LossFn, state: TrainState, episodes: PyTree, keys: jax.Array, axis_name: str | None
) -> tuple[PyTree, Any]:
    """As `_together`, with the same sequence of floating-point operations for every number of devices."""

    def gradient(
        params: PyTree, batch_stats: PyTree, step: jax.Array, episode: PyTree, key: jax.Array
    ) -> tuple[PyTree, Any]:
        return jax.grad(_loss_of(loss_fn, batch_stats, step), has_aux=True)(params, episode, key)

    def inputs(number: int) -> tuple[PyTree, ...]:
        episode, key = jax.tree.map(lambda leaf: leaf[number], (episodes, keys))
        return _keep_apart((state.params, state.batch_stats, state.step, episode, key))

    # Traced here, so that of the whole gradient only the call itself, not what lies within, is kept from inlining.
    program, result = jax.make_jaxpr(gradient, return_shape=True)(*inputs(0))
    alone = jax.jit(jaxpr_as_fun(program))

    def one(number: int) -> tuple[PyTree, Any]:
        leaves = jax.tree.leaves(inputs(number))
        with _not_inlined():
            leaves = alone(*leaves)
        return _keep_apart(jax.tree.unflatten(jax.tree.structure(result), leaves))

    # A Python loop: inside lax.map or lax.scan XLA's CPU backend leaves convolutions' weight gradients to a naive
    # kernel, some forty times slower. Compiling takes longer in return.
    results = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[one(number) for number in range(len(keys))])
    if axis_name is not None:
        results = jax.lax.all_gather(results, axis_name, tiled=True)
    return _keep_apart(_mean(_keep_apart(results)))


_barrier = jax.jit(jax.lax.optimization_barrier)


def _keep_apart(tree: PyTree) -> PyTree:
    """The identity, which keeps the compiler from fusing what makes the arrays with what uses them.

    An episode's last operations would otherwise be fused with what collects the episodes, which differs with their
    number, and a multiplication and an addition in one kernel round differently from those in two.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier(tree)
    # XLA's CPU backend removes optimization barriers before it fuses; a call that is not inlined stays.
    with _not_inlined():
        return _barrier(tree)


def _not_inlined() -> contextlib.AbstractContextManager[None]:
    """Calls of jitted functions within stay calls on a CPU: each is compiled alone, whatever surrounds it."""
    return (
        set_xla_metadata(inlineable="false") if jax.default_backend() == "cpu" else contextlib.nullcontext()
    )
