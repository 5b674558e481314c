"""Several sources as one."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jxai.checks import shown
from jxai.data.decode import LazyPictures
from jxai.data.source import Source, frozen
from jxai.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from PIL import Image


def merge(sources: Sequence[Source]) -> Source:
    """Makes one source of the classes of several, to train one classifier of them all.

    Args:
        sources: the sources, at least one; pictures of different sizes stay as they are.

    Returns:
        A source with the classes of all, numbered on; class names are "domain/class" where there are several. Of
        sources of different splits it is a whole domain, whose classes keep theirs.

    Raises:
        TypeError: something else than sources.
        ValueError: no source, or one of them twice.
    """
    sources = check_sources(sources)
    if len(sources) == 1:
        return sources[0]
    offsets = np.cumsum([0, *(len(source.class_names) for source in sources[:-1])])
    return Source(
        name="+".join(source.name for source in sources),
        class_names=tuple(f"{source.name}/{name}" for source in sources for name in source.class_names),
        labels=frozen(
            np.concatenate([s.labels + offset for s, offset in zip(sources, offsets, strict=True)]).astype(
                np.int32
            )
        ),
        digests=frozen(np.concatenate([source.digests for source in sources])),
        pictures=_Chained(tuple(sources)),
        rows=frozen(np.arange(sum(len(source) for source in sources))),
        class_splits=tuple(split for source in sources for split in source.class_splits),
        split=sources[0].split if len({source.split for source in sources}) == 1 else "all",
    )


def check_sources(sources: Sequence[Source], *, least: int = 1) -> tuple[Source, ...]:
    """Checks several sources.

    Args:
        sources: the sources.
        least: how many there must be.

    Returns:
        The sources.

    Raises:
        TypeError: something else among them.
        ValueError: too few, or one of them twice.
    """
    if not isinstance(sources, Sequence) or not all(isinstance(source, Source) for source in sources):
        raise InputTypeError(f"expected sources, got {shown(sources)}: load them")
    if len(sources) < least:
        raise InputError(f"expected at least {least} sources, got {len(sources)}: load another one")
    if len({source.fingerprint for source in sources}) < len(sources):
        names = ", ".join(f"{source.name} {source.split}" for source in sources)
        raise InputError(f"expected sources of different data, got one twice among {names}: leave it out")
    return tuple(sources)


@dataclasses.dataclass(frozen=True, eq=False)
class _Chained(LazyPictures):
    """The pictures of several sources, one after another."""

    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def opened(self, i: int) -> "contextlib.AbstractContextManager[Image.Image]":
        for source in self.sources:
            if i < len(source):
                return source.opened(i)
            i -= len(source)
        raise IndexError(i)
