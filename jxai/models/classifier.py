"""An encoder with a dense layer on top, to pretrain the encoder as an ordinary classifier."""

import flax.linen as nn
import jax

from jxai.models.layers import check_fields, check_maps, dense_init


class Classifier(nn.Module):
    """Features averaged over positions, then one dense layer.

    The encoder's variables stand under "encoder", the dense layer's under "head", so a pretrained encoder is
    `variables["params"]["encoder"]` and `variables["batch_stats"]["encoder"]`.

    Attributes:
        encoder: Linen module from images (N, H, W, C) to a map (N, h, w, C'), called with `train`.
        num_classes: number of scores.
    """

    encoder: nn.Module
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Scores before the softmax.

        Args:
            x: normalized images, (N, H, W, C).
            train: whether batch norm uses the batch's statistics (and updates the running ones).

        Returns:
            Scores, (N, num_classes).

        Raises:
            ValueError: if `num_classes` is less than 1, or the encoder gives no maps.
        """
        check_fields(self)
        features = self.encoder(x, train=train)  # pyright: ignore[reportCallIssue]
        check_maps(features, "an encoder that gives maps (N, h, w, C)")
        features = features.mean(axis=(1, 2))
        return nn.Dense(self.num_classes, kernel_init=dense_init, name="head")(features)
