"""Scores of methods by metrics, as tables, JSON and CSV."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jxai.checks import shown
from jxai.errors import InputError
from jxai.metrics import score_tables


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of methods by metrics, image by image.

    Attributes:
        scores: by method and metric, one number an image, (N,) float32; a metric that means nothing for a method is
            not there.
        directions: "higher" or "lower" by metric: what is better.
        control: the method that is never the best, or None.
        curves: by method and metric, (N, points) float32, where a metric gives one.
        names: of the images, N; by default their places.
    """

    scores: Mapping[str, Mapping[str, np.ndarray]]
    directions: Mapping[str, str]
    control: str | None
    curves: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    names: Sequence[str] = ()

    def means(self) -> dict[str, dict[str, float]]:
        """Means over images, by method and metric."""
        return {
            name: {metric: float(values.mean()) for metric, values in of.items()}
            for name, of in self.scores.items()
        }

    def table(self) -> str:
        """Methods by metrics as Markdown: mean ± 95 % interval over images, the best in bold, the control aside."""
        return score_tables.score_table(
            self.scores,
            methods={name: name for name in self.scores},
            columns={name: name for name in self.directions},
            control=self.control,
            directions=self.directions,
        )

    def differences(self, reference: str) -> str:
        """Each method less a reference on the same images, as Markdown: mean ± paired 95 % interval.

        Args:
            reference: a method's name, such as the control's.

        Returns:
            The table; bold where the interval leaves 0 out and the method is better.

        Raises:
            ValueError: no such method.
        """
        if reference not in self.scores:
            raise InputError(f"expected a reference among {', '.join(self.scores)}, got {shown(reference)}")
        return score_tables.difference_table(
            self.scores,
            methods={name: name for name in self.scores},
            columns={name: name for name in self.directions},
            reference=reference,
            directions=self.directions,
        )

    def to_json(self) -> dict[str, Any]:
        """Scores of each image, means, intervals and directions, of JSON's types; what is not finite is None."""
        return {
            "directions": dict(self.directions),
            "control": self.control,
            "scores": score_tables.summaries(self.scores),
        }

    def to_csv(self) -> str:
        """One line a method, metric and image, below the names of the columns."""
        lines = ["method,metric,image,score"]
        for method, of in self.scores.items():
            for metric, values in of.items():
                images = map(_quoted, self.names) if self.names else range(len(values))
                start = f"{_quoted(method)},{_quoted(metric)}"
                lines += [f"{start},{one},{v!r}" for one, v in zip(images, values.tolist(), strict=True)]
        return "\n".join(lines) + "\n"

    def _repr_markdown_(self) -> str:
        return self.table()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
