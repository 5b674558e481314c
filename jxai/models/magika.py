"""Magika's network: the first and last bytes of a file to scores of file types.

See *Magika: AI-Powered Content-Type Detection* by Fratantonio et al., 2024.
"""

import json
import os
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import printable, shown
from jxai.errors import InputError, InputTypeError
from jxai.models.layers import check_fields
from jxai.models.loaded import Loaded
from jxai.models.onnx_file import read_onnx
from jxai.models.transformers.layers import check_sequence, check_tokens, computed, layer_norm
from jxai.models.weights import WeightsReport, fill_variables

PADDING = 256  # in the place of a byte where the file has none
_BLOCK = 4096


class Magika(nn.Module):
    """Bytes embedded, four of them as a step; a norm over steps, a convolution, its maxima, a norm, scores.

    Attributes:
        num_classes: number of scores.
        num_bytes: that it reads, a multiple of four.
        width: channels of an embedding.
        conv_width: channels of the convolution.
        conv_size: steps that it reads at once.
        labels: names of the types, where they are known.
    """

    num_classes: int = 214
    num_bytes: int = 2048
    width: int = 64
    conv_width: int = 512
    conv_size: int = 5
    labels: tuple[str, ...] = ()

    def setup(self) -> None:
        """Modules."""
        self.embedding = nn.Embed(PADDING + 1, self.width)
        self.bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
        self.norm1 = layer_norm(1e-6)
        self.conv = nn.Conv(self.conv_width, (self.conv_size,), padding="VALID")
        self.norm2 = layer_norm(1e-6)
        self.head = nn.Dense(self.num_classes)

    def embed(self, ids: jax.Array) -> jax.Array:
        """Embeddings of bytes.

        Args:
            ids: bytes, (N, num_bytes), 256 where there is none; see `byte_features`.

        Returns:
            (N, num_bytes, width).

        Raises:
            TypeError: they are no integers.
            ValueError: they are not as many, or one is no byte.
        """
        check_fields(self)
        check_tokens(ids, vocab_size=PADDING + 1, context=self.num_bytes)
        self._check_length(ids)
        return computed(self.embedding(ids))

    def encode(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """What the file is like, behind the last norm.

        Args:
            x: embeddings, (N, num_bytes, width).
            mask: None; padding has an embedding of its own.

        Returns:
            (N, conv_width).

        Raises:
            TypeError: x holds no floats.
            ValueError: a shape is wrong, or there is a mask.
        """
        check_fields(self)
        if mask is not None:
            raise InputError(f"expected no mask, got {shown(mask)}: bytes that are not there are {PADDING}")
        what = "embeddings (N, T, C)"
        check_sequence(x, rank=3, what=what, context=self.num_bytes, channels=self.width)
        self._check_length(x)
        x = computed(jnp.asarray(x))
        y = jax.nn.gelu(x + self.bias[None, None].astype(x.dtype))
        y = y.reshape(x.shape[0], self.num_bytes // 4, 4 * self.width)
        # The norm is over the steps, of each channel.
        y = self.norm1(y.swapaxes(1, 2)).swapaxes(1, 2)
        return self.norm2(jax.nn.gelu(self.conv(y)).max(axis=1))

    def classify(self, hidden: jax.Array) -> jax.Array:
        """Scores before the softmax, (N, num_classes), of what `encode` gives."""
        return self.head(hidden)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Scores of file types before the softmax.

        Args:
            ids: bytes, (N, num_bytes), 256 where there is none; see `byte_features`.

        Returns:
            (N, num_classes).

        Raises:
            ValueError: as `embed`.
        """
        return self.classify(self.encode(self.embed(ids)))

    def _check_length(self, x: jax.Array) -> None:
        if self.num_bytes % 4 or self.num_bytes // 4 < self.conv_size:
            raise InputError(
                f"expected num_bytes as a multiple of 4 and at least {4 * self.conv_size}, got "
                f"{self.num_bytes}: change it"
            )
        if x.shape[1] != self.num_bytes:
            raise InputError(f"expected {self.num_bytes} bytes, got {x.shape[1]}: take byte_features")


def byte_features(content: bytes, *, num_bytes: int = 2048) -> np.ndarray:
    """What `Magika` reads of a file: its beginning and its end, without white space around it.

    Args:
        content: the file's bytes.
        num_bytes: that are read, an even number: half from the beginning, half from the end.

    Returns:
        (1, num_bytes) int32; 256 behind a beginning and before an end that are shorter.

    Raises:
        TypeError: it is no bytes.
        ValueError: it is empty, or the number is odd.
    """
    if not isinstance(content, bytes | bytearray):
        raise InputTypeError(f"expected the bytes of a file, got {shown(content)}: read it as 'rb'")
    if not content:
        raise InputError("expected the bytes of a file, got none: it is empty")
    if not isinstance(num_bytes, int) or num_bytes < 2 or num_bytes % 2:
        raise InputError(f"expected an even num_bytes, got {shown(num_bytes)}: half is of either end")
    half = num_bytes // 2
    features = np.full((1, num_bytes), PADDING, np.int32)
    first = np.frombuffer(bytes(content[:_BLOCK]).lstrip()[:half], np.uint8)
    last = np.frombuffer(bytes(content[-_BLOCK:]).rstrip()[-half:], np.uint8)
    features[0, : len(first)] = first
    features[0, num_bytes - len(last) :] = last
    return features


_ROOT = "jax2tf_get_logits_/"
_NETWORK = f"{_ROOT}pjit_get_logits_/MagikaV2/"
# Names and layouts as PyTorch's -> what the export of the network calls its arrays.
_ARRAYS = {
    "embedding.weight": f"{_ROOT}Const:0",  # the first layer's kernel, of which a one-hot byte takes a row
    "bias": f"{_NETWORK}Dense_0/Reshape:0",
    "norm1.weight": f"{_NETWORK}LayerNorm_0/Reshape_2:0",
    "norm1.bias": f"{_NETWORK}LayerNorm_0/Reshape_3:0",
    "conv.weight": f"{_NETWORK}Conv_0/transpose_3:0",
    "conv.bias": "const_fold_opt__209",
    "norm2.weight": f"{_NETWORK}LayerNorm_1/Reshape_2:0",
    "norm2.bias": f"{_NETWORK}LayerNorm_1/Reshape_3:0",
    "head.weight": f"{_ROOT}Const_24:0",
    "head.bias": f"{_NETWORK}Dense_1/Reshape:0",
}
_CONFIG = "config.min.json"


def load_magika(path: str | os.PathLike[str]) -> Loaded:
    """The network with the weights of an ONNX file, and the types that a file beside it names.

    See `jxai.models.magika`.
    """
    arrays = read_onnx(path)
    name = printable(Path(path).name)
    if absent := sorted(set(_ARRAYS.values()) - set(arrays)):
        raise InputError(
            f"expected the network standard_v3_3 of magika, got {name} without {absent[0]}: take that version"
        )
    tensors = {ours: arrays.pop(theirs) for ours, theirs in _ARRAYS.items()}
    # Biases and norms have axes of 1 around them, and the convolution one behind it.
    tensors = {ours: one.squeeze() for ours, one in tensors.items()}
    tensors["head.weight"] = tensors["head.weight"].T
    module = Magika(labels=_labels(Path(path).with_name(_CONFIG)))
    example = jax.ShapeDtypeStruct((1, module.num_bytes), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), example)
    modules = {name: name for name in ("", "embedding", "norm1", "conv", "norm2", "head")}
    variables, report = fill_variables(shapes, tensors, modules=modules)
    mapped = tuple((variable, _ARRAYS[tensor]) for variable, tensor in report.mapped)
    return Loaded(module, variables, None, WeightsReport(mapped, (), tuple(sorted(arrays))))


def _labels(path: Path) -> tuple[str, ...]:
    """Names of the types, in the order of the scores; none where there is no file of them."""
    if not path.is_file():
        return ()
    try:
        found = json.loads(path.read_text("utf-8"))["target_labels_space"]
        right = len(found) == Magika.num_classes and all(isinstance(one, str) for one in found)
    except (ValueError, KeyError, TypeError, RecursionError):
        found, right = [], False
    if not right:
        raise InputError(
            f"expected the names of {Magika.num_classes} types, got none in {printable(path)}: install magika again"
        )
    return tuple(found)
