"""Pieces, words and sentences of the kinds of tokenizers there are, built here."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from jxai import text
from jxai.text.pieces import _of_bytes


def byte_level(*merged):
    """A token for each byte, and for each text given."""
    written = {byte: character for character, byte in _of_bytes().items()}
    names = [written[byte] for byte in range(256)]
    names += ["".join(written[b] for b in one.encode()) for one in merged]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def plain(names, decoder):
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=names[0]))
    tokenizer.decoder = decoder
    return tokenizer, range(len(names))


@pytest.mark.parametrize("written", ["héllo wörld!", "🙂👩‍👩‍👧 ok", "日本語 text", "\x00\t\n", "a" * 50])
def test_bytes_make_the_text_again(written):
    found = text.pieces(list(written.encode()), tokenizer=byte_level())
    assert "".join(found.texts) == written
    assert "".join(found.joined(found.words)) == written
    assert len(found.texts) == len(written.encode())


def test_a_character_of_several_tokens_is_one_word():
    found = text.pieces(list("ü 🙂!".encode()), tokenizer=byte_level())
    assert found.texts == ("", "ü", " ", "", "", "", "🙂", "!")
    assert found.joined(found.words) == ("ü", " ", "🙂!")
    assert len({*found.words[3:7]}) == 1


def test_bytes_that_are_no_text_are_told_apart():
    found = text.pieces([0xE2, 0x82], tokenizer=byte_level())
    assert "".join(found.texts) == "�"


def test_words_begin_behind_spaces_and_at_punctuation():
    tokenizer = byte_level("The", " cap", "ital", " of", " France", ",", " isn", "'t", " 3")
    found = text.pieces(range(256, 265), tokenizer=tokenizer)
    assert found.joined(found.words) == ("The", " capital", " of", " France", ",", " isn't", " 3")
    assert found.words == (0, 1, 1, 2, 3, 4, 5, 5, 6)


def test_sentences_end_with_their_signs():
    tokenizer = byte_level("One", ".", " Two", "!", "”", " 3", "14", "\n", "Four", "?")
    numbers = [256 + i for i in (0, 1, 2, 3, 4, 5, 1, 6, 7, 8, 9)]
    found = text.pieces(numbers, tokenizer=tokenizer)
    assert found.joined(found.sentences) == ("One.", " Two!”", " 3.14\n", "Four?")


def test_pieces_of_word_piece_and_special_tokens():
    tokenizer, numbers = plain(
        ["[CLS]", "un", "##believ", "##able", "!", "it", "'", "s", "[SEP]"], decoders.WordPiece()
    )
    tokenizer.add_special_tokens([AddedToken("[CLS]", special=True), AddedToken("[SEP]", special=True)])
    found = text.pieces(numbers, tokenizer=tokenizer)
    assert found.joined(found.words) == ("[CLS]", " unbelievable", "!", " it's", "[SEP]")


def test_pieces_of_sentence_piece_with_bytes():
    decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer, numbers = plain(["▁Hel", "lo", "▁", "<0xC3>", "<0xBC>", "▁日", "本"], decoder)
    found = text.pieces(numbers, tokenizer=tokenizer)
    assert found.texts == (" Hel", "lo", " ", "", "ü", " 日", "本")
    assert found.joined(found.words) == (" Hello", " ", "ü", " 日", "本")


def test_a_marker_is_no_byte_where_the_decoder_knows_none():
    tokenizer, numbers = plain(["<0xC3>", "▁x"], decoders.Metaspace())
    assert text.pieces(numbers, tokenizer=tokenizer).texts == ("<0xC3>", " x")


def test_nothing_has_no_pieces():
    assert text.pieces([], tokenizer=byte_level()) == text.Pieces((), (), ())


def test_join_adds_along_any_axis():
    relevance = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(
        text.join(relevance, (0, 0, 1, 1)),
        np.stack([relevance[..., :2].sum(-1), relevance[..., 2:].sum(-1)], -1),
    )
    np.testing.assert_array_equal(
        text.join(relevance, (0, 1, 0), axis=1),
        np.stack([relevance[:, 0] + relevance[:, 2], relevance[:, 1]], 1),
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text.pieces([[1]], tokenizer=byte_level()), r"shape \(T,\)"),
        (lambda: text.pieces([1.5], tokenizer=byte_level()), "integers"),
        (lambda: text.pieces([999], tokenizer=byte_level()), "vocabulary, got 999"),
        (lambda: text.pieces([-1], tokenizer=byte_level()), "vocabulary, got -1"),
        (lambda: text.pieces([1], tokenizer="gpt2"), "tokenizer of the package"),
        (lambda: text.join(np.ones(3), (0, 1)), "of 2 tokens"),
        (lambda: text.join(np.ones(3), (0, 1, 2), axis=1), "of 3 tokens"),
        (lambda: text.join(np.ones(3), (0, 1, 7)), "from 0 to 2"),
        (lambda: text.join(np.ones(3), (0, -1, 1)), "integers from 0"),
        (lambda: text.join(np.ones(3) * 1j, (0, 1, 2)), "real"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        call()
