"""The few-shot task: a few labeled images a class, and queries to sort into those classes."""

import flax.struct
import jax

from jxai.checks import shown
from jxai.errors import InputTypeError
from jxai.fewshot.checks import check_labels, check_task


@flax.struct.dataclass
class Episode:
    """One N-way K-shot task. Any number of leading axes may stand before those given here.

    Attributes:
        support: normalized images, (way·shot, H, W, C), class by class.
        support_labels: class of each support image within the episode, (way·shot,), integers in [0, way).
        query: normalized images, (way·queries, H, W, C), class by class.
        query_labels: class of each query image, (way·queries,).
        way: number of classes; static, so that one-hot widths are known when a function is traced.
        query_classes: class of each query image among all classes of all training domains, (way·queries,), as
            `data.merge` numbers them; None where nothing knows or needs it.
    """

    support: jax.Array
    support_labels: jax.Array
    query: jax.Array
    query_labels: jax.Array
    way: int = flax.struct.field(pytree_node=False)
    query_classes: jax.Array | None = None


def check_episode(episode: Episode) -> None:
    """Refuse what is no single episode; for the errors see `jxai.fewshot.checks.check_task`.

    Args:
        episode: one episode, without leading axes.

    Raises:
        TypeError: it is none, or of other arrays.
        ValueError: its arrays do not fit.
    """
    if not isinstance(episode, Episode):
        raise InputTypeError(f"expected an Episode, got {shown(episode)}: make one")
    check_task(episode.support, episode.support_labels, episode.query, episode.way)
    check_labels("query_labels", episode.query_labels, count=len(episode.query), way=episode.way)
    if episode.query_classes is not None:
        check_labels("query_classes", episode.query_classes, count=len(episode.query))
