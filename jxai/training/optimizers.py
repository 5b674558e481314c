"""Optimizers and learning-rate schedules from a small configuration."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, get_args

import optax

from jxai.checks import check_count, check_number, shown
from jxai.errors import InputError, InputTypeError

Name = Literal["adam", "sgd"]
Schedule = Literal["constant", "cosine", "steps"]

# Parameters without a configuration of their own.
_REST = "rest"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer with its schedule; the defaults are RelationNet's as released: Adam at 1e-3, constant.

    The cross-attention network's is `OptimizerConfig("sgd", 0.1, momentum=0.9, nesterov=True,
    weight_decay=5e-4, schedule="steps", boundaries=(18000, 21000), rates=(0.006, 0.0012))`: 0.1 for 60 epochs
    of 300 steps, then 0.006 for 10, then 0.0012.

    Attributes:
        name: "adam" or "sgd".
        learning_rate: the rate at the start, or after the warm-up; > 0.
        momentum: of SGD, in [0, 1).
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: added to the gradient as weight_decay · parameters (L2, as PyTorch's), >= 0.
        clip_norm: gradients are scaled down to this Euclidean norm; None does not clip.
        schedule: "constant"; "cosine" down to 0 at the last step; "steps": `rates[i]` from step
            `boundaries[i]` on.
        warmup_steps: steps of linear rise from 0 before the schedule begins.
        boundaries: increasing steps at which the rate changes, for "steps".
        rates: the rate from each boundary on, as many as boundaries, for "steps".
    """

    name: Name = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    boundaries: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()


def make_schedule(config: OptimizerConfig, *, num_steps: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
        config: what to build.
        num_steps: steps of the whole training; the cosine ends there.

    Returns:
        A function from the step to the learning rate.

    Raises:
        TypeError: no configuration.
        ValueError: a field is outside its range; the message names it.
    """
    _check_config(config)
    check_number("learning_rate", config.learning_rate, above=0)
    check_count("num_steps", num_steps)
    if not check_count("warmup_steps", config.warmup_steps, least=0) < num_steps:
        raise InputError(f"expected warmup_steps in [0, num_steps={num_steps}), got {config.warmup_steps}")
    if config.schedule == "constant":
        schedule = optax.constant_schedule(config.learning_rate)
    elif config.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(config.learning_rate, num_steps - config.warmup_steps)
    elif config.schedule == "steps":
        for number in (*_tuple("boundaries", config.boundaries), *_tuple("rates", config.rates)):
            check_number("boundaries and rates", number, least=0)
        increasing = all(a < b for a, b in zip((0, *config.boundaries), config.boundaries, strict=False))
        if not config.boundaries or len(config.boundaries) != len(config.rates) or not increasing:
            raise InputError(
                f"expected increasing `boundaries` > 0 and as many `rates`, got {config.boundaries} and "
                f'{config.rates}: schedule "steps" needs both'
            )
        pieces = [optax.constant_schedule(rate) for rate in (config.learning_rate, *config.rates)]
        # Boundaries count from the training's first step, the joined schedule from the end of the warm-up.
        schedule = optax.join_schedules(pieces, [step - config.warmup_steps for step in config.boundaries])
    else:
        raise InputError(f"expected schedule of {get_args(Schedule)}, got {shown(config.schedule)}: name one")
    if not config.warmup_steps:
        return schedule
    rise = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([rise, schedule], [config.warmup_steps])


def make_optimizer(
    config: OptimizerConfig, *, num_steps: int, parts: Mapping[str, OptimizerConfig] | None = None
) -> optax.GradientTransformation:
    """The Optax optimizer of a configuration.

    Args:
        config: what to build.
        num_steps: steps of the whole training, for the schedule.
        parts: other configurations, by name, for parts of the parameters such as "transformation".

    Returns:
        Clipping, weight decay and the optimizer in a chain; each part is clipped alone.

    Raises:
        TypeError: no configuration, or parts that are no mapping.
        ValueError: a field is outside its range, or the parameters have no such part; the message names it.
    """
    if not isinstance(parts, Mapping | None):
        raise InputTypeError(f"expected parts by name, got {shown(parts)}: give a dictionary")
    if parts:
        made: dict[Hashable, optax.GradientTransformation] = {
            name: make_optimizer(each, num_steps=num_steps) for name, each in {**parts, _REST: config}.items()
        }
        return optax.partition(made, _labels(parts))
    schedule = make_schedule(config, num_steps=num_steps)
    chained = []
    check_number("weight_decay", config.weight_decay, least=0)
    if config.clip_norm is not None:
        check_number("clip_norm", config.clip_norm, above=0)
        chained.append(optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay:
        chained.append(optax.add_decayed_weights(config.weight_decay))
    if config.name == "adam":
        chained.append(optax.adam(schedule))
    elif config.name == "sgd":
        check_number("momentum", config.momentum, least=0, below=1)
        chained.append(optax.sgd(schedule, momentum=config.momentum or None, nesterov=config.nesterov))
    else:
        raise InputError(f"expected an optimizer of {get_args(Name)}, got {shown(config.name)}: name one")
    return optax.chain(*chained)


def _check_config(config: Any) -> None:
    if not isinstance(config, OptimizerConfig):
        raise InputTypeError(f"expected an OptimizerConfig, got {shown(config)}: make one")


def _tuple(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise InputError(f"expected {name} as a tuple, got {shown(value)}: list the numbers")
    return tuple(value)


def _labels(parts: Mapping[str, Any]) -> Callable[[Any], dict[str, str]]:
    """The function from parameters to the part that each tree of them belongs to."""

    def labels(params: Any) -> dict[str, str]:
        if missing := sorted(set(parts) - set(params)):
            raise InputError(
                f"expected parameters with {', '.join(missing)}, got {', '.join(params)}: "
                "give `parts` of the parameters that are trained"
            )
        return {name: name if name in parts else _REST for name in params}

    return labels
