"""Texts colored by relevance: what is written, in which color, and nothing of it runs."""

import html.parser
import re

import numpy as np
import pytest

from jxai import viz

TOKENS = ["The", " cap", "<script>x</script>", "\x1b[31m", "\u202e", "", "\n", '"', "日本"]
VALUES = np.array([[1.0, -0.5, 0, 0, 0, 0, 0, 0.25, -1], [4.0, 2, 0, 0, 0, 0, 0, 0, 0]])


class Spans(html.parser.HTMLParser):
    """The texts and titles of the spans."""

    def __init__(self):
        super().__init__()
        self.tags, self.spans = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "span":
            self.spans.append([dict(attrs)["title"], dict(attrs)["style"], ""])

    def handle_data(self, data):
        if self.spans and self.tags[-1] == "span" and not self.spans[-1][2]:
            self.spans[-1][2] = data


def parsed(text):
    found = Spans()
    found.feed(text)
    return found


def test_html_shows_the_texts_their_numbers_and_one_scale():
    found = viz.text_maps(VALUES, tokens=TOKENS, names=["one", "<i>two"], captions=["a", "b"])
    spans = parsed(found.html).spans
    assert len(spans) == 18
    assert [text for *_, text in spans[:9]] == [
        "The",
        " cap",
        "<script>x</script>",
        "\\x1b[31m",
        "\\u202e",
        "∅",
        "\n",
        '"',
        "日本",
    ]
    assert [float(title) for title, *_ in spans] == VALUES.ravel().tolist()
    # One scale, 4: the first row's 1 is a quarter of it.
    quarter = viz.diverging_colors(0.25).tolist()
    assert "rgb({} {} {})".format(*quarter) in spans[0][1]
    assert "rgb(103 0 31)" in spans[9][1] and "rgb(255 255 255)" in spans[2][1]
    assert found.html.count("full color at ±4") == 2 and "&lt;i&gt;two" in found.html
    assert not {"script", "i"} & set(parsed(found.html).tags)


def test_a_scale_for_each_map():
    found = viz.text_maps(VALUES, tokens=TOKENS, scale=[1, 4])
    spans = parsed(found.html).spans
    assert "rgb(103 0 31)" in spans[0][1] and "rgb(103 0 31)" in spans[9][1]


def test_a_page_stands_alone():
    page = viz.text_maps(VALUES[0], tokens=TOKENS).page(title="<b>")
    assert page.startswith("<!doctype html>") and "<title>&lt;b&gt;</title>" in page
    assert not re.search(r"https?:|<script|<link|@import|src=", page)
    assert "_repr_html_" in dir(viz.text_maps([1.0], tokens=["a"])) and "notebook" in repr(
        viz.text_maps([1.0], tokens=["a"])
    )


def test_nothing_moves_the_cursor_of_a_terminal():
    shown = viz.text_ansi(VALUES[0], tokens=TOKENS)
    codes = re.findall(r"\x1b\[([0-9;]*)m", shown)
    assert len(codes) == 18 and codes[0].startswith("48;2;103;0;31") and set(codes[1::2]) == {"0"}
    left = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert left.isprintable() and left.startswith("The cap<script>x</script>\\x1b[31m\\u202e\\n")
    assert viz.text_ansi([0.5, -2.0], tokens=["a", " b"], colors=False) == "a[+0.5] b[-2]"


def test_zeros_are_white():
    spans = parsed(viz.text_maps([0.0], tokens=["a"]).html).spans
    assert "rgb(255 255 255)" in spans[0][1]


def painted(path):
    from matplotlib.image import imread

    return (imread(path)[..., :3] * 255).round().astype(int)


def has(picture, color):
    return (abs(picture - np.asarray(color, int)).sum(-1) <= 3).any()


def test_sheet(tmp_path):
    path = viz.text_sheet(
        VALUES,
        tokens=[*TOKENS[:8], "x" * 100],
        names=["one", "$two$"],
        title="t",
        path=tmp_path / "a" / "s.png",
        dpi=60,
    )
    picture = painted(path)
    assert has(picture, (103, 0, 31)) and has(picture, viz.diverging_colors(-0.125))


def test_matrix_of_tokens_and_of_layers(tmp_path):
    relevance = np.array([[1.0, 0.0, -1.0], [0.5, 0.0, 0.0]])
    path = viz.token_matrix(
        relevance,
        rows=["layer 0", "<1>"],
        columns=[" a", "\n", "語" * 30],
        title="m",
        path=tmp_path / "m.png",
        dpi=60,
    )
    picture = painted(path)
    for color in ((103, 0, 31), (5, 48, 97), viz.diverging_colors(0.5)):
        assert has(picture, color)


@pytest.mark.slow
def test_a_long_matrix_is_drawn(tmp_path):
    path = viz.token_matrix(
        np.ones((150, 200)), rows=["r"] * 150, columns=["c"] * 200, path=tmp_path / "m.png", dpi=40
    )
    assert max(painted(path).shape) < 1500


def test_patches_keep_sums():
    relevance = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype(np.float32)
    found = viz.patch_means(relevance, patch=2)
    assert found.shape == (2, 6, 4, 1) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum((1, 2, 3)), relevance.sum((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found[0, 2:4, 2:4], relevance[0, 2:4, 2:4].sum() / 4, rtol=1e-4)
    picture = np.zeros((2, 6, 4, 3), np.uint8)
    assert viz.overlay(picture, found, scale=1.0).shape == (2, 6, 4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: viz.text_maps(np.ones(2), tokens=["a"]), "2 tokens, got 1"),
        (lambda p: viz.text_maps(np.ones((1, 1, 1)), tokens=["a"]), r"shape \(M, T\)"),
        (lambda p: viz.text_maps([np.nan], tokens=["a"]), "finite relevance"),
        (lambda p: viz.text_maps([1.0], tokens="a"), "tokens as a sequence"),
        (lambda p: viz.text_maps([1.0], tokens=["a"], names=["b", "c"]), "1 names"),
        (lambda p: viz.text_maps([1.0], tokens=["a"], scale=0.0), "scale above 0"),
        (lambda p: viz.text_maps([1.0], tokens=["a"], scale=[1.0, 2.0]), "got shape"),
        (lambda p: viz.text_ansi(VALUES, tokens=TOKENS), r"shape \(T,\)"),
        (lambda p: viz.text_sheet([1.0], tokens=["a"], path=p / "a.jpg"), r"\.png"),
        (
            lambda p: viz.token_matrix(np.ones(3), rows=["a"], columns=["b"], path=p / "a.png"),
            r"shape \(R, C\)",
        ),
        (
            lambda p: viz.token_matrix(np.ones((1, 2)), rows=["a"], columns=["b"], path=p / "a.png"),
            "2 columns",
        ),
        (lambda p: viz.patch_means(np.ones((4, 5, 1)), patch=2), "multiples of 2"),
    ],
)
def test_what_is_refused(tmp_path, call, message):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        call(tmp_path)
    assert not [*tmp_path.iterdir()]
