"""Digests that show whether a checkpoint is as it was written, and the error where it is not."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jxai.errors import InputError
from jxai.training.types import PyTree


class DamagedCheckpointError(InputError):
    """A checkpoint was cut short, altered or lost files since it was written."""


def named(tree: PyTree) -> dict[str, Any]:
    """{path of a leaf, as "params/encoder/kernel": the leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def forms(tree: PyTree) -> dict[str, str]:
    """{path of an array: "dtype(shape)"}."""
    return {name: f"{leaf.dtype}{leaf.shape}" for name, leaf in named(tree).items()}


def digests(arrays: PyTree) -> dict[str, str]:
    """{path of an array: hexadecimal digest of its dtype, shape and bytes}."""
    return {name: _of_array(array) for name, array in named(arrays).items()}


def verify(arrays: PyTree, expected: Mapping[str, str]) -> None:
    """Raises a ValueError that names the arrays which are missing or have other values than were written."""
    found = digests(arrays)
    wrong = [name for name in sorted(found.keys() | expected) if found.get(name) != expected.get(name)]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"other values than were written in {', '.join(wrong[:4])}{more}")


def _of_array(array: np.ndarray) -> str:
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=16)
    # As bytes: not every dtype of JAX's has a buffer that hashlib takes.
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
