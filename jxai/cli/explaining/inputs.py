"""What networks take: pictures of one size, their bytes scaled channel by channel."""

import dataclasses

import numpy as np
from jax.typing import ArrayLike

from jxai import data
from jxai.data.picture import Resampling
from jxai.errors import InputError


@dataclasses.dataclass(frozen=True)
class InputSpace:
    """From pictures to a network's inputs.

    Attributes:
        size: side in pixels.
        shorter: what a picture's shorter side is resized to before the middle is cut out.
        mean: of RGB in [0, 1], what is subtracted.
        std: what that is divided by.
        resampling: how pictures are resized.
    """

    size: int
    shorter: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resampling: Resampling = "bicubic"

    def __post_init__(self):
        if self.size < 1 or self.shorter < self.size:
            raise InputError(
                f"expected an input size of at least 1, and a shorter side of at least that, got {self.size} and "
                f"{self.shorter}: give pixels"
            )
        if not all(np.isfinite(self.mean)) or not all(value > 0 and np.isfinite(value) for value in self.std):
            raise InputError(
                f"expected finite means and deviations above 0, got {self.mean} and {self.std}: give those of RGB in "
                "[0, 1]"
            )

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Scale bytes.

        Args:
            pictures: uint8, (..., 3).

        Returns:
            float32 of the same shape, from `low` to `high`.
        """
        mean, std = (np.float32(np.array(of) * 255) for of in (self.mean, self.std))
        return (pictures.astype(np.float32) - mean) / std

    def square(self, picture: np.ndarray) -> np.ndarray:
        """What of a picture the network sees.

        Args:
            picture: uint8, (H, W, 3).

        Returns:
            uint8, (size, size, 3): its middle.
        """
        return data.center_square(picture, size=self.size, shorter=self.shorter, resampling=self.resampling)

    @property
    def low(self) -> ArrayLike:
        """What black becomes: a number, or one a channel, (3,)."""
        return self._level(0)

    @property
    def high(self) -> ArrayLike:
        """What white becomes: a number, or one a channel, (3,)."""
        return self._level(255)

    @property
    def gray(self) -> ArrayLike:
        """What 127 of 255 becomes: a number, or one a channel, (3,)."""
        return self._level(127)

    @property
    def gray_levels(self) -> float:
        """How much of the input 128 of 255 gray levels are, the mean over the channels."""
        return float(np.mean(128 / 255 / np.array(self.std)))

    def _level(self, value: float) -> ArrayLike:
        levels = self(np.full(3, value))
        return float(levels[0]) if (levels == levels[0]).all() else levels


# As the authors' release has it: (byte - 127) / 128.
EFFICIENTNET_LITE0 = InputSpace(
    224, 256, mean=(127 / 255, 127 / 255, 127 / 255), std=(128 / 255, 128 / 255, 128 / 255)
)
# As torchvision's networks were trained and tested.
TORCHVISION = InputSpace(
    224, 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resampling="bilinear"
)
