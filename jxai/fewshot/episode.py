"""The few-shot task: a few labeled images a class, and queries to sort into those classes.

Losses of encoder and head take an episode of images, a head one of their features: the same structure.
"""

import flax.struct
import jax

from jxai.checks import shown
from jxai.errors import InputTypeError
from jxai.fewshot.checks import check_labels, check_task


@flax.struct.dataclass
class Episode:
    """One N-way K-shot task, of images or of their features. Any number of leading axes may stand before these.

    Attributes:
        support: normalized images (way·shot, H, W, C) or features (way·shot, ...), class by class as drawn; heads
            take any order of classes, and a head that looks at the queries alone takes none.
        support_labels: class of each support image within the episode, (way·shot,), integers in [0, way).
        query: images or features likewise, (way·queries, ...), class by class as drawn.
        query_labels: class of each query image, (way·queries,); losses need them, scores do not: None without.
        way: number of classes; static, so that one-hot widths are known when a function is traced.
        query_classes: class of each query image among all classes of all training domains, (way·queries,), as
            `data.merge` numbers them; None where nothing knows or needs it.
    """

    support: jax.Array
    support_labels: jax.Array
    query: jax.Array
    query_labels: jax.Array | None = None
    way: int = flax.struct.field(pytree_node=False, kw_only=True)
    query_classes: jax.Array | None = None

    @property
    def shot(self) -> int:
        """Labeled images a class, rounded down where classes have different numbers."""
        return self.support_labels.shape[-1] // self.way


def check_episode(episode: Episode, *, labeled: bool = False) -> None:
    """Refuse what is no single episode; for the errors see `jxai.fewshot.checks.check_task`.

    Public functions call it once, on what they are given; what they call in turn does not.

    Args:
        episode: one episode, without leading axes.
        labeled: whether the queries' labels must be there.

    Raises:
        TypeError: it is none, or of other arrays.
        ValueError: its arrays do not fit.
    """
    if not isinstance(episode, Episode):
        raise InputTypeError(f"expected an Episode, got {shown(episode)}: make one")
    check_task(episode.support, episode.support_labels, episode.query, episode.way)
    if labeled or episode.query_labels is not None:
        check_labels("query_labels", episode.query_labels, count=len(episode.query), way=episode.way)
    if episode.query_classes is not None:
        check_labels("query_classes", episode.query_classes, count=len(episode.query))
