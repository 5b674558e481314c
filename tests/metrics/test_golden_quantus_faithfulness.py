"""The metrics of faithfulness against Quantus' values, on a small network with given heatmaps.

Where Quantus works on single features, its heatmaps are broadcast over the channels: a pixel's features are equal,
and an unstable sort settles which goes first. That order is read off Quantus' own curve of pixel flipping, in which
any two candidates differ; the rest then has to follow from it. Its "black" is the smallest value of the image.
"""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jxai import metrics

pytestmark = pytest.mark.golden
close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)


class Archive:
    """The archive, its network and the parameters in its keys."""

    def __init__(self, path):
        with np.load(path) as archive:
            self.values = dict(archive)
        self.x, self.heatmap = (jnp.asarray(self.values[name]) for name in ("image", "heatmap"))
        self.target = jnp.asarray(self.values["target"], jnp.int32)
        self.black = self.x.min(axis=(1, 2, 3), keepdims=True)

    def named(self, pattern):
        """(numbers in the name, values) of each key of this pattern."""
        found = [(re.fullmatch("quantus_" + pattern, key), key) for key in self.values]
        return [(tuple(map(int, match.groups())), self.values[key]) for match, key in found if match]

    def f(self, x):
        for name, stride in (("conv1", 1), ("conv2", 2)):
            x = lax.conv_general_dilated(
                x,
                self.values[f"{name}_kernel"],
                (stride, stride),
                [(1, 1), (1, 1)],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision="highest",
            )
            x = jax.nn.relu(x + self.values[f"{name}_bias"])
        features = x.mean(axis=(1, 2))
        return (
            jnp.matmul(features, self.values["dense_kernel"], precision="highest") + self.values["dense_bias"]
        )

    @functools.cached_property
    def scores(self):
        return np.asarray(jax.jit(self.f)(self.x))[np.arange(len(self.x)), self.target]

    @functools.cached_property
    def attributions(self):
        """The heatmaps broadcast over channels, equal ones told apart by the last bits as Quantus' sort did."""
        ((step,), curve) = self.named(r"pixel_flipping_step(\d+)_black")[0]
        flat = np.repeat(np.asarray(self.heatmap).reshape(len(self.x), -1), self.x.shape[-1], axis=1)
        read = jax.jit(self.f)
        told = np.empty_like(flat)
        for n, line in enumerate(flat):
            values = sorted(set(line.tolist()), reverse=True)
            groups = [np.flatnonzero(line == np.float32(value)).tolist() for value in values]
            assert max(map(len, groups)) <= 6, "too many equal features to find their order"
            order, ends = [], set(range(step, len(line), step))
            for group in groups:
                inside = sorted(end - len(order) for end in ends if 0 < end - len(order) < len(group))
                for taken in inside:
                    done = [i for i in group if i in order]
                    left = [i for i in group if i not in order]
                    candidates = list(itertools.combinations(left, taken - len(done)))
                    images = np.repeat(np.asarray(self.x[n]).reshape(1, -1), len(candidates), axis=0)
                    for image, some in zip(images, candidates, strict=True):
                        image[[*order, *some]] = self.black[n].item()
                    found = np.asarray(read(images.reshape(-1, *self.x.shape[1:])))[:, self.target[n]]
                    place = (len(order) + len(candidates[0])) // step - 1
                    order += candidates[np.abs(found - curve[n, place]).argmin()]
                order += [i for i in group if i not in order]
            told[n, order] = np.sort(line)[::-1]
            for group in groups:  # so many of the smallest steps down from the first
                for place, i in enumerate(sorted(group, key=order.index)):
                    for _ in range(place):
                        told[n, i] = np.nextafter(told[n, i], np.float32(-np.inf))
            assert (np.argsort(-told[n], kind="stable") == order).all()
        return jnp.asarray(told.reshape(self.x.shape))


@pytest.fixture(scope="module")
def archive(golden):
    return Archive(golden / "quantus.npz")


def test_golden_quantus_network(archive):
    found = np.asarray(jax.jit(archive.f)(archive.x))
    close(found, archive.values["logits"])


def flipped(archive, step):
    """Scores after each step of single features, as pixels of an image of one channel."""
    shape = archive.x.shape
    lines = archive.x.reshape(len(archive.x), -1, 1, 1)
    curve = metrics.pixel_flipping(
        lambda x: archive.f(x.reshape(-1, *shape[1:])),
        lines,
        archive.attributions.reshape(lines.shape[:3]),
        archive.target,
        baseline=archive.black,
        num_steps=lines.shape[1],
    )
    ends = [*range(step, lines.shape[1], step), lines.shape[1]]
    return np.asarray(curve)[:, ends]


def test_golden_quantus_pixel_flipping(archive):
    found = archive.named(r"pixel_flipping_step(\d+)_black")
    assert found
    for (step,), expected in found:
        close(flipped(archive, step), expected)


def test_golden_quantus_pixel_flipping_where_equal_features_do_not_matter(archive):
    # Whole pixels at a time: nothing here is read off the reference.
    channels = archive.x.shape[-1]
    for (step,), expected in archive.named(r"pixel_flipping_step(\d+)_black"):
        curve = metrics.pixel_flipping(
            archive.f,
            archive.x,
            archive.heatmap,
            archive.target,
            baseline=archive.black,
            num_steps=archive.heatmap[0].size,
        )
        places = [k for k in range(expected.shape[1]) if (k + 1) * step % channels == 0]
        assert places
        close(np.asarray(curve)[:, [(k + 1) * step // channels for k in places]], expected[:, places])


def test_golden_quantus_faithfulness_estimate(archive):
    found = archive.named(r"faithfulness_estimate_step(\d+)_black")
    assert found
    for (step,), expected in found:
        close(
            metrics.faithfulness_estimate(
                archive.f,
                archive.x,
                archive.attributions,
                archive.target,
                group_size=step,
                baseline=archive.black,
            ),
            expected,
        )


def test_golden_quantus_sensitivity_n(archive):
    """Quantus' own number, of our curve: over images, the k-th step's attributions with the drop since the start."""
    found = archive.named(r"sensitivity_n_step(\d+)_half_black")
    assert found
    for (step,), expected in found:
        drops = archive.scores[:, None] - flipped(archive, step)
        ordered = -np.sort(-np.asarray(archive.attributions).reshape(len(drops), -1), axis=1)
        for k, reference in enumerate(expected):
            sums = ordered[:, k * step : (k + 1) * step].sum(axis=1)
            close(np.corrcoef(sums, drops[:, k])[0, 1], reference)


def test_golden_quantus_selectivity(archive):
    found = archive.named(r"selectivity_p(\d+)_black")
    assert found
    for (patch,), expected in found:
        curve = metrics.selectivity(
            archive.f, archive.x, archive.heatmap, archive.target, patch_size=patch, baseline=archive.black
        )
        close(curve[:, 1:], expected)
        close(curve[:, 0], archive.scores)


def test_golden_quantus_region_perturbation(archive):
    found = archive.named(r"region_perturbation_p(\d+)_r(\d+)_black_morf")
    assert found
    for (patch, regions), expected in found:
        curve = metrics.region_perturbation(
            archive.f,
            archive.x,
            archive.heatmap,
            archive.target,
            patch_size=patch,
            num_regions=regions,
            baseline=archive.black,
        )
        close(curve[:, 1:], expected)
