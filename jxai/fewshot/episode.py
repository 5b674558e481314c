"""The few-shot task: a few labelled images a class, and queries to sort into those classes."""

import flax.struct
import jax


@flax.struct.dataclass
class Episode:
    """One N-way K-shot task. Any number of leading axes may stand before those given here.

    Attributes:
        support: normalised images, (way·shot, H, W, C), class by class.
        support_labels: class of each support image within the episode, (way·shot,), integers in [0, way).
        query: normalised images, (way·queries, H, W, C), class by class.
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
