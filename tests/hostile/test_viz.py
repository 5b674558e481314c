"""`jxai.viz` under hostile input."""

import functools
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from strategies import (
    EFFORTS,
    Argument,
    Case,
    Spoilt,
    array,
    count,
    given_as,
    integers,
    number,
    one_of,
    search,
    unheard_of,
)

from jxai import viz

EXEMPT = {"InlineMaps": "what `inline` returns", "TextMaps": "what `text_maps` returns"}
RELEVANCE = array("nhwc", wrap=np.asarray)
PICTURES = Argument(
    lambda size: st.integers(0, 5).map(
        lambda n: np.random.default_rng(n).integers(0, 256, (size.n, size.h, size.w, 3), np.uint8)
    ),
    lambda size: st.sampled_from(
        [
            Spoilt(np.full((size.n, size.h, size.w, 3), 300), refused=True),
            Spoilt(np.full((size.n, size.h, size.w, 3), -1), refused=True),
            Spoilt(np.full((size.n, size.h, size.w, 3), np.nan), refused=True),
            *(
                Spoilt(np.zeros(shape, np.uint8))
                for shape in ((0, 4, 4, 3), (2, 0, 4, 3), (2, 4, 4), (3,), ())
            ),
            *map(Spoilt, (None, "text", [[1], [2, 3]], np.zeros((size.n, size.h, size.w, 3), complex))),
        ]
    ),
)
DPI = count(20, 40)
TITLE = one_of("", "$a$ title")


def drawn(function):
    """The function with a path of its own, and the PNG's first bytes as the answer."""

    @functools.wraps(function)
    def call(**given):
        with tempfile.TemporaryDirectory() as folder:
            path = function(path=Path(folder) / "new" / "picture.png", **given)
            return path.read_bytes()[:4] == b"\x89PNG"

    return call


def is_true(found, given):
    return found is True


def bytes_like(found, given):
    return found.dtype == np.uint8 and found.shape[-1] == 3


CONSERVATION = given_as(
    lambda size: SimpleNamespace(
        start=np.ones(size.n),
        paths=("a", "b"),
        operations=("dense", "sum"),
        **{name: np.full((2, size.n), 0.1) for name in ("bias", "stabilizer", "zeros", "rule")},
    ),
    *(Spoilt(v, refused=True) for v in (None, 3, {})),
    *(
        Spoilt(
            SimpleNamespace(
                start=np.full(2, start),
                paths=paths,
                operations=paths,
                **{name: np.full((len(paths), 2), value) for name in ("bias", "stabilizer", "zeros", "rule")},
            ),
            refused=True,
        )
        for start, paths, value in (
            (0.0, ("a",), 1.0),
            (np.nan, ("a",), 1.0),
            (1.0, (), 1.0),
            (1.0, ("a",), np.inf),
        )
    ),
)
EPISODE = {
    "support": Argument(
        lambda size: PICTURES.good(size).map(lambda p: np.stack([p[:1]] * size.k)),
        lambda size: PICTURES.bad(size),
    ),
    "query": PICTURES,
    "query_labels": integers("n", below="k", wrap=np.asarray),
    "relevance": array("nkhwc", wrap=np.asarray),
    "scores": array("nk", wrap=np.asarray),
    "class_names": given_as(
        lambda size: [f"class_{i}" for i in range(size.k)],
        *(Spoilt(v, refused=True) for v in ([], ["one"], None, 3, [1, 2, 3], "abc" * 7)),
    ),
}
SUPPORT = {name: EPISODE[name] for name in ("support", "query", "query_labels", "class_names")}
RUN = [{"step": 1, "loss": 0.5, "accuracy": 0.1}, {"step": 2, "loss": 0.4}]


def texts(axis):
    """As many as an axis is long."""
    return given_as(
        lambda size: ["<a>", "\x1b", "\ud800", "\u202e", ""][: getattr(size, axis)],
        *(Spoilt(v, refused=True) for v in ([], ["one"] * 9, None, 3, [1, 2, 3, 4], "abcd")),
    )


NAMES = given_as(
    lambda size: ["$name$ <b>"] * size.n,
    *(Spoilt(v, refused=True) for v in (None, ["one"] * 9, 3, "text", [3, 3])),
)
TEXTS = {"relevance": array("nh", wrap=np.asarray), "tokens": texts("h")}
SCALE = number(None, 1.0, wrong=(0.0, -1.0))
CASES = {
    "diverging_colors": Case(viz.diverging_colors, {"values": RELEVANCE}, holds=bytes_like),
    "episode_sheet": Case(
        drawn(viz.episode_sheet),
        {**EPISODE, "title": TITLE, "scale": number(None, 1.0, wrong=(0.0, -1.0)), "dpi": DPI},
        holds=is_true,
    ),
    "heatmap": Case(
        viz.heatmap, {"relevance": RELEVANCE, "scale": number(1.0, 1e-3, wrong=(0.0, -1.0))}, holds=bytes_like
    ),
    "ink_mask": Case(
        viz.ink_mask,
        {"images": PICTURES, "threshold": number(32.0, 0.0), "margin": count(0, 2, least=0)},
        holds=lambda found, given: found.shape == given["images"].shape[:3] and found.dtype == bool,
    ),
    "ink_share": Case(
        viz.ink_share,
        {
            "relevance": RELEVANCE,
            "images": PICTURES,
            "threshold": number(32.0),
            "margin": count(0, 2, least=0),
        },
        undefined="nan where an image has no relevance",
        holds=lambda found, given: not ((found < 0) | (found > 1)).any(),
    ),
    "inline": Case(
        viz.inline,
        {
            "relevance": RELEVANCE,
            "pictures": PICTURES,
            "captions": given_as(
                lambda size: ["a <caption>"] * size.n,
                *(Spoilt(v, refused=True) for v in (None, ["one"] * 9, 3, "text", [3])),
            ),
            "scale": number(None, 1.0, wrong=(0.0, -1.0)),
            "width": count(1, 100),
        },
        holds=lambda found, given: found._repr_html_().count("<img") == 2 * len(given["relevance"]),
    ),
    "learning_curves": Case(
        drawn(viz.learning_curves),
        {
            "runs": one_of(
                {"plain": [RUN, RUN], "guided": [RUN]},
                bad=[
                    *(Spoilt(v, refused=True) for v in (None, [], {}, {"a": []}, {"a": [[]]})),
                    *(
                        Spoilt(v, refused=True)
                        for v in ({"a": [[{"step": 1, "loss": "text"}]]}, {"a": [[3]]}, {"a": 3})
                    ),
                    Spoilt({"a": [[{"step": 1, "loss": None, "accuracy": float("nan")}]]}),
                ],
            ),
            "metrics": one_of(
                ("loss", "accuracy"),
                ["loss"],
                bad=[Spoilt(v, refused=True) for v in ((), ("other",), None, 3, "loss")],
            ),
            "x": one_of("step", bad=[Spoilt("epoch", refused=True), Spoilt(None, refused=True)]),
            "smoothing": number(0.0, 2.0, wrong=(-1.0,)),
            "title": TITLE,
            "dpi": DPI,
        },
        holds=is_true,
    ),
    "method_sheet": Case(
        drawn(viz.method_sheet),
        {
            "pictures": PICTURES,
            "maps": Argument(
                lambda size: RELEVANCE.good(size).map(lambda r: {"one": r}),
                lambda size: (
                    RELEVANCE.bad(size).map(lambda bad: Spoilt({"one": bad.value}, bad.refused))
                    | st.sampled_from([Spoilt(v, refused=True) for v in (None, 3, [1])])
                ),
            ),
            "captions": given_as(
                lambda size: [("a class", "0.5")] * size.n,
                *(Spoilt(v, refused=True) for v in (None, [], [("one",)] * 9, 3, ["text"], [3])),
            ),
            "notes": one_of(
                None, bad=[Spoilt(v, refused=True) for v in ({"two": ["x"]}, {"one": []}, {"one": 3}, 3)]
            ),
            "opacity": number(1.0, 0.5, wrong=(-0.5, 1.5)),
        },
        holds=is_true,
    ),
    "overlay": Case(
        viz.overlay,
        {
            "picture": PICTURES,
            "relevance": RELEVANCE,
            "scale": number(1.0, wrong=(0.0,)),
            "opacity": number(0.6, 0.0, 1.0, wrong=(-0.5, 1.5)),
        },
        holds=bytes_like,
    ),
    "relevance_flow": Case(
        drawn(viz.relevance_flow),
        {
            "conservation": CONSERVATION,
            "smallest": number(0.002, 0.5, wrong=(-1.0,)),
            "title": TITLE,
            "dpi": DPI,
        },
        holds=is_true,
    ),
    "shared_scale": Case(
        viz.shared_scale,
        {
            "relevance": RELEVANCE,
            "quantile": number(0.5, 1.0, wrong=(0.0, 2.0)),
            "maps": number(0.8, wrong=(0.0, 2.0)),
        },
        holds=lambda found, given: found > 0,
    ),
    "signed_sum": Case(
        viz.signed_sum,
        {"relevance": RELEVANCE},
        holds=lambda found, given: found.shape == given["relevance"].shape[:-1],
    ),
    "patch_means": Case(
        viz.patch_means,
        {"relevance": array("n444", wrap=np.asarray), "patch": count(1, 2, 4, odd=(3, 8))},
        holds=lambda found, given: found.shape == (*given["relevance"].shape[:3], 1),
    ),
    "support_sheet": Case(
        drawn(viz.support_sheet),
        {
            **SUPPORT,
            "of_support": Argument(
                lambda size: array("nkhwc").good(size).map(lambda r: np.asarray(r)[:, :, None]),
                lambda size: array("nkhwc", wrap=np.asarray).bad(size),
            ),
            "of_query": array("nhwc", wrap=np.asarray),
            "target": integers("n", below="k", wrap=np.asarray),
            "title": TITLE,
            "scale": SCALE,
            "dpi": DPI,
        },
        holds=is_true,
    ),
    "text_ansi": Case(
        viz.text_ansi,
        {
            "relevance": array("h", wrap=np.asarray),
            "tokens": texts("h"),
            "scale": SCALE,
            "colors": one_of(True, False),
        },
        holds=lambda found, given: found.replace("\x1b", "").isprintable(),
    ),
    "text_maps": Case(
        viz.text_maps,
        {**TEXTS, "names": NAMES, "captions": NAMES, "scale": SCALE},
        holds=lambda found, given: "<a>" not in found.page(title="<a>"),
    ),
    "text_sheet": Case(
        drawn(viz.text_sheet),
        {**TEXTS, "names": NAMES, "title": TITLE, "scale": SCALE, "dpi": DPI},
        holds=is_true,
    ),
    "token_matrix": Case(
        drawn(viz.token_matrix),
        {
            "relevance": array("hc", wrap=np.asarray),
            "rows": texts("h"),
            "columns": texts("c"),
            "title": TITLE,
            "scale": SCALE,
            "dpi": DPI,
        },
        holds=is_true,
    ),
}


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("viz", CASES, EXEMPT)


@pytest.mark.parametrize("path", ["picture.jpg", "picture", ""])
def test_pictures_are_png(tmp_path, path):
    with pytest.raises(ValueError, match=r"expected a path that ends in \.png"):
        viz.learning_curves({"plain": [RUN]}, path=tmp_path / path, metrics=("loss",), dpi=20)


def test_arrays_of_jax_are_arrays():
    assert viz.signed_sum(jnp.ones((2, 3, 1), jnp.bfloat16)).shape == (2, 3)
