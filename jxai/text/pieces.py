"""From a tokenizer's pieces to words and sentences.

A tokenizer is one of the package `tokenizers`; it is asked for `id_to_token` and `to_str` alone. Pieces of bytes
(GPT-2's and LLaMA 3's alphabet, or `<0xE2>`) may end within a character: its bytes are kept until it is complete.
"""

import codecs
import dataclasses
import functools
import json
import operator
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jxai.checks import as_array, as_numpy, shown
from jxai.errors import InputError, InputTypeError


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The tokens of one text, and which words and sentences they make.

    Attributes:
        texts: what each token adds to the text; "" where it ends within a character, that a later token completes.
        words: the word of each token, (T,) integers from 0; for `join`.
        sentences: the sentence of each token, (T,) integers from 0.
    """

    texts: tuple[str, ...]
    words: tuple[int, ...]
    sentences: tuple[int, ...]

    def joined(self, groups: Sequence[int]) -> tuple[str, ...]:
        """The texts of groups such as `words`."""
        found = [""] * (max(groups, default=-1) + 1)
        for text, group in zip(self.texts, groups, strict=True):
            found[group] += text
        return tuple(found)


def pieces(ids: ArrayLike, *, tokenizer: Any) -> Pieces:
    """The texts of tokens, and the words and sentences that they make.

    A word begins behind white space, where letters and punctuation meet, and with every special token; what is
    written without spaces in wide characters (Chinese, Japanese) has a word a token. A sentence ends with ".", "!",
    "?", "…", their wide forms or a line's end, where white space or the text's end follows: "e. g." counts as two.

    Args:
        ids: the tokens of one text, (T,) integers.
        tokenizer: see the module.

    Returns:
        Texts, words and sentences.

    Raises:
        TypeError: no integers, or no tokenizer.
        ValueError: another shape, or a token that the tokenizer does not know.

    Example:
        >>> from tokenizers import Tokenizer, decoders, models
        >>> own = Tokenizer(models.WordPiece({"play": 0, "##ing": 1, "well": 2, ".": 3}, unk_token="."))
        >>> own.decoder = decoders.WordPiece()
        >>> pieces([0, 1, 2, 3], tokenizer=own).joined((0, 0, 1, 2))
        ('playing', ' well', '.')
    """
    ids = as_numpy("ids", ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "ui"):
        raise InputError(
            f"expected `ids` of shape (T,), integers, got {ids.dtype} of shape {ids.shape}: give one text's tokens"
        )
    if not hasattr(tokenizer, "id_to_token") or not hasattr(tokenizer, "to_str"):
        raise InputTypeError(
            f"expected a tokenizer of the package tokenizers, got {shown(tokenizer)}: pip install tokenizers"
        )
    names = [_name(tokenizer, int(number)) for number in ids]
    about = json.loads(tokenizer.to_str())
    special = {added["content"] for added in about.get("added_tokens") or () if added.get("special")}
    is_special = [name in special for name in names]
    texts = _texts(names, is_special, json.dumps(about.get("decoder")))
    units = _units(texts)
    # What a token completes belongs together.
    whole = [i == 0 or bool(texts[i - 1]) for i in range(len(texts))]
    words = _count([whole[i] and _begins_word(units, is_special, i) for i in range(len(texts))])
    sentences = _count([whole[i] and _begins_sentence(units, i) for i in range(len(texts))])
    return Pieces(tuple(texts), words, sentences)


def join(relevance: ArrayLike, groups: Sequence[int], *, axis: int = -1) -> jax.Array:
    """Relevance of groups: the sum over their tokens, so that nothing is lost.

    Args:
        relevance: of T tokens along one axis.
        groups: the group of each token, (T,) integers from 0, such as `Pieces.words`.
        axis: which axis the tokens are along.

    Returns:
        The same with G groups along that axis, float32 at least.

    Raises:
        TypeError: relevance is no array of real numbers.
        ValueError: there is no such axis, or its length is not that of the groups.

    Example:
        >>> join([[1.0, 2.0, 4.0]], (0, 0, 1)).tolist()
        [[3.0, 4.0]]
    """
    relevance = as_array(relevance)
    if jnp.issubdtype(relevance.dtype, jnp.complexfloating):
        raise InputTypeError(f"expected relevance of real numbers, got {relevance.dtype}: take real parts")
    numbers = as_numpy("groups", groups)
    if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "ui" or numbers.min() < 0:
        raise InputError(
            f"expected groups of shape (T,), integers from 0, got {shown(groups)}: see text.pieces"
        )
    if numbers.max() >= len(numbers):
        raise InputError(
            f"expected groups from 0 to {len(numbers) - 1}, got {numbers.max()}: number them in a row"
        )
    try:
        length = relevance.shape[operator.index(axis)]
    except (TypeError, IndexError):
        length = None
    if length != len(numbers):
        raise InputError(
            f"expected relevance of {len(numbers)} tokens along axis {shown(axis)}, got shape {relevance.shape}: "
            "give groups of this text"
        )
    wide = jnp.promote_types(relevance.dtype, jnp.float32)
    moved = jnp.moveaxis(relevance.astype(wide), axis, 0)
    sums = jax.ops.segment_sum(moved, jnp.asarray(numbers), num_segments=int(numbers.max()) + 1)
    return jnp.moveaxis(sums, 0, axis)


def _name(tokenizer: Any, number: int) -> str:
    name = tokenizer.id_to_token(number) if number >= 0 else None
    if name is None:
        raise InputError(
            f"expected tokens of the tokenizer's vocabulary, got {number}: give the tokenizer that made them"
        )
    return name


_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MARK = "\u2581"  # what SentencePiece writes for a space


_NO_SPACE = ".,;:!?%)]}'’…"  # WordPiece forgets where spaces were; in English none stands before these


def _texts(names: Sequence[str], special: Sequence[bool], decoder: str) -> list[str]:
    """What each token adds to the text, by what the tokenizer's decoder is made of."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    texts = []
    for i, (name, whole) in enumerate(zip(names, special, strict=True)):
        if whole:
            data = name.encode()
        elif '"ByteLevel"' in decoder:
            data = bytes(_of_bytes()[c] for c in name) if set(name) <= set(_of_bytes()) else name.encode()
        elif (byte := _BYTE.fullmatch(name)) and '"ByteFallback"' in decoder:
            data = bytes([int(byte[1], 16)])
        elif '"WordPiece"' in decoder:
            apart = i > 0 and name[0] not in _NO_SPACE and names[i - 1] != "'"
            data = (name[2:] if name.startswith("##") else f" {name}" if apart else name).encode()
        else:
            data = name.replace(_MARK, " ").replace("</w>", " ").encode()
        texts.append(decode(data, final=i == len(names) - 1))
    return texts


@functools.cache
def _of_bytes() -> dict[str, int]:
    """The byte of each character of GPT-2's alphabet: printable Latin-1 as it is, the others from U+0100 on."""
    as_they_are = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in as_they_are]
    return {chr(b): b for b in as_they_are} | {chr(0x100 + i): b for i, b in enumerate(others)}


def _units(texts: Sequence[str]) -> list[str]:
    """Texts in which a token that ends within a character has what completes it."""
    units, following = [], ""
    for text in reversed(texts):
        following = text or following
        units.append(following)
    return units[::-1]


def _count(begins: Sequence[bool]) -> tuple[int, ...]:
    return tuple((np.cumsum(begins, dtype=int) - 1).tolist())


def _begins_word(units: Sequence[str], special: Sequence[bool], i: int) -> bool:
    if i == 0 or special[i] or special[i - 1]:
        return True
    before, here = units[i - 1], units[i]
    if not before or not here:
        return False
    last, first = before[-1], here[0]
    if first.isspace() or last.isspace():
        return not (first.isspace() and last.isspace())
    return _kind(last) != _kind(first) or (_kind(first) == "wide")


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    wide = unicodedata.east_asian_width(character) in "WF" and category == "Lo"
    if wide and not unicodedata.name(character, "").startswith("HANGUL"):
        return "wide"
    return "word" if category[0] in "LNM" or character in "_'’\ufffd" else "sign"


_ENDS = tuple(".!?…。！？")
_CLOSING = "\"'”’)]»」』"


def _begins_sentence(units: Sequence[str], i: int) -> bool:
    if i == 0:
        return True
    before, here = units[i - 1], units[i]
    if "\n" in before:
        return not here.isspace()
    done = before.rstrip().rstrip(_CLOSING)
    ends = done.endswith(_ENDS) or (not done and i > 1 and units[i - 2].rstrip().endswith(_ENDS))
    return ends and (here[:1].isspace() or before[-1:].isspace() or done.endswith(("。", "！", "？")))
