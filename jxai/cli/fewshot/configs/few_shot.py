"""What a few-shot run is: data, model, guidance, and how long each part trains."""

import dataclasses
import types
import typing
from typing import Any, Literal

from jxai.checks import printable
from jxai.data.augmentation import Augmentation
from jxai.errors import InputError
from jxai.fewshot import Guidance
from jxai.training import OptimizerConfig

Transformation = Literal["none", "fixed", "learned"]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The encoder as a classifier of base classes, before episodes begin."""

    sources: tuple[str, ...] = ()
    """Domains whose base classes it learns; () for the run's own."""

    steps: int = 4000
    """0 leaves the encoder as it was drawn."""
    batch_size: int = 16
    save_every: int = 500
    """Steps between checkpoints."""
    optimizer: OptimizerConfig = OptimizerConfig()


@dataclasses.dataclass(frozen=True)
class Config:
    """A few-shot run. The defaults are the release's, but for the encoder and the data."""

    sources: tuple[str, ...] = ("latin",)
    """Domains that training draws from: their base classes; their validation classes choose the checkpoint."""
    encoder: str = "conv4np"
    width: int = 64
    """Channels of a convolutional encoder's blocks, or of a residual one's first stage (doubled at each next)."""
    image_size: int = 32
    short_side: int | None = None
    """Of the prepared copies of large domains, see `jxai prepare`; None for pictures as they are."""
    augment: Augmentation | None = None
    """"resized-crop" or "crop-erase", see `data.episode_dataset`; a flipped letter is another letter."""
    augment_on_device: bool = False
    """Augment within the compiled step, see `data.augment_on_device`; for hosts with few cores."""
    repeat: bool = False
    """Whether a class with too few pictures repeats them, as in the releases, instead of being an error."""
    domain_epoch: int = 1
    """Episodes for which training keeps a domain, or a pair of domains, that it has drawn."""
    transformation: Transformation = "none"
    """Feature-wise transformation of the encoder in training: with fixed noise scales (FT), or learned ones (LFT)."""
    auxiliary: bool = False
    """Whether the encoder also learns to tell all base classes apart, ever less as training goes on."""
    head: str = "relation"
    head_width: int = 64
    """Channels of RelationNet's convolutions; the release has the encoder's last width, 512."""
    way: int = 5
    shot: int = 5
    queries: int = 16
    """Queries a class in training."""
    guidance: Guidance = Guidance()
    train_encoder: bool = True
    """False keeps the pretrained encoder as it is and trains the head alone."""
    pretraining: Pretraining = Pretraining()
    steps: int = 4000
    episodes_per_step: int = 1
    """Over all devices; a multiple of their number."""
    optimizer: OptimizerConfig = OptimizerConfig()
    eval_every: int = 500
    validation_episodes: int = 200
    seed: int = 0
    deterministic: bool = False
    """Bit-identical on every number of CPU devices, and slower."""


def from_json(kind: Any, value: Any) -> Any:
    """What `json.dumps(dataclasses.asdict(...))` was made from.

    Args:
        kind: the type: a dataclass, tuple[T, ...], T | None, or what JSON has.
        value: what JSON read.

    Returns:
        An instance of `kind`.

    Raises:
        ValueError: a field is unknown or of another type, or one without default is missing. (A field that came
            later has the default that means what was before it.)
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        _check(isinstance(value, dict), kind, value)
        hints = typing.get_type_hints(kind)
        required = {
            field.name
            for field in dataclasses.fields(kind)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        if not required <= value.keys() <= hints.keys():
            raise InputError(
                f"expected the fields {', '.join(hints)} of {kind.__name__}, got {printable(', '.join(value))}: "
                "the file is of another version"
            )
        return kind(**{name: from_json(hints[name], item) for name, item in value.items()})  # pyright: ignore
    if typing.get_origin(kind) is tuple:
        _check(isinstance(value, list | tuple), kind, value)
        return tuple(from_json(typing.get_args(kind)[0], item) for item in value)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (inner,) = (option for option in typing.get_args(kind) if option is not type(None))
        return None if value is None else from_json(inner, value)
    if typing.get_origin(kind) is Literal:
        _check(any(type(value) is type(one) and value == one for one in typing.get_args(kind)), kind, value)
    elif kind is float:
        _check(isinstance(value, int | float) and not isinstance(value, bool), kind, value)
    elif kind in (int, bool, str):
        _check(type(value) is kind, kind, value)
    return value


def _check(fits: bool, kind: Any, value: Any) -> None:
    if not fits:
        name = getattr(kind, "__name__", kind)
        raise InputError(
            f"expected {name}, got {str(value)[:60]!r}: the file is of another version, or damaged"
        )
