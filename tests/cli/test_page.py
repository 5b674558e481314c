"""The page to look through explanations: what stands in the file, and what a browser makes of it."""

import base64
import io
import json
import re

import numpy as np
import pytest
from browser import chromium
from PIL import Image

from jxai import viz
from jxai.cli.explaining.page import write_page

SIDE, COUNT, CLASSES = 16, 3, 9
NAMES = ["a.png", "<b>&\"'.png", "</script><script>alert(1)</script>🦅.jpg"]


def arguments(**changes):
    rng = np.random.default_rng(0)
    values = {
        "title": "What <it> sees",
        "about": "@DATA@ & more",
        "names": NAMES,
        "pictures": rng.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8),
        "scores": np.arange(CLASSES)[::-1] * np.ones((COUNT, 1)),
        "targets": np.array([0, 2, 8]),
        "truths": ["class 0", None, "class 3"],
        "class_names": [f"class {index}" for index in range(CLASSES)],
        "labels": {"grad-cam": "Grad-CAM", "lrp-0": "LRP-0"},
        "maps": {
            "grad-cam": rng.random((COUNT, SIDE, SIDE, 1)),
            "lrp-0": rng.normal(size=(COUNT, SIDE, SIDE, 3)),
        },
        "notes": {"lrp-0": ["sum / score = 1", "sum / score = 2", "sum / score = 3"]},
    }
    return {**values, **changes}


def embedded(page):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def decoded(source):
    kind, text = source.split(",", 1)
    return kind, Image.open(io.BytesIO(base64.b64decode(text)))


def test_the_file_is_whole_by_itself(tmp_path):
    path = write_page(tmp_path / "made" / "index.html", **arguments())
    text = path.read_text("utf-8")
    assert "http" not in text.replace("http-equiv", "")
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert "What &lt;it&gt; sees" in text and "@DATA@ &amp; more" in text


def test_what_is_embedded_is_what_was_given(tmp_path):
    given = arguments()
    data = embedded(write_page(tmp_path / "index.html", **given).read_text("utf-8"))
    assert [method["name"] for method in data["methods"]] == ["grad-cam", "lrp-0"]
    assert [picture["name"] for picture in data["pictures"]] == NAMES
    assert [picture["truth"] for picture in data["pictures"]] == ["class 0", None, "class 3"]
    second = data["pictures"][1]
    assert [one["note"] for one in second["maps"]] == ["", "sum / score = 2"]
    kind, picture = decoded(second["source"])
    assert kind == "data:image/jpeg;base64" and picture.size == (SIDE, SIDE)
    kind, drawn = decoded(second["maps"][1]["source"])
    relevance = given["maps"]["lrp-0"][1]
    expected = viz.heatmap(relevance, scale=viz.shared_scale(relevance)).astype(int)
    assert kind == "data:image/png;base64"
    assert np.abs(np.asarray(drawn.convert("RGB")) - expected).max() < 12  # 63 levels
    # Five classes, and the explained one after them where it is none of them.
    assert [row["name"] for row in second["classes"]] == [f"class {index}" for index in range(5)]
    assert [row["explained"] for row in second["classes"]] == [False, False, True, False, False]
    last = data["pictures"][2]["classes"]
    assert [row["name"] for row in last][-2:] == ["class 4", "class 8"] and last[-1]["explained"]
    # Scores 8, 7, ..., 0: the softmax of the first is 1 / Σ exp(-k) = 63.2 %.
    assert (second["classes"][0]["probability"], second["classes"][0]["score"]) == ("63.2", "8.00")


@pytest.mark.slow
def test_in_a_browser(tmp_path):
    path = write_page(tmp_path / "index.html", **arguments())
    with chromium(tmp_path / "profile") as page:
        page.open(path.as_uri())
        assert page.value("document.title") == "What <it> sees"
        assert page.value("document.querySelectorAll('#thumbnails img').length") == COUNT
        loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
        assert page.value(loaded)
        name, place = "document.getElementById('name').textContent", "location.hash"
        opacity = "[...document.querySelectorAll('.map')].map((map) => getComputedStyle(map).opacity)"
        shown = "[...document.querySelectorAll('#maps figure')].map((one) => one.offsetWidth > 0)"
        assert page.value(name) == NAMES[0]
        assert page.value("document.getElementById('truth').textContent") == "True class: class 0"

        for key, index in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowRight", 2), ("ArrowLeft", 1)):
            page.key(key)
            assert page.value(name) == NAMES[index]
        assert page.value("document.getElementById('truth').hidden")
        assert page.value("document.querySelectorAll('#top li').length") == 5
        assert page.value(place).startswith("#picture=2")
        page.value("document.querySelectorAll('#thumbnails button')[2].click()")
        assert page.value("document.querySelectorAll('#top li').length") == 6
        assert page.value(loaded)

        # The arrow keys on the slider move the slider.
        page.value("document.getElementById('overlay').focus()")
        before = float(page.value(opacity)[0])
        page.key("ArrowLeft")
        assert page.value(opacity) == [str(round(before - 0.01, 2))] * 2
        assert page.value("document.querySelector('#thumbnails [aria-current=true] img').alt") == page.value(
            name
        )

        # The next tab stop is the first method: space takes it away.
        page.key("Tab")
        page.key(" ")
        assert page.value(shown) == [False, True]
        assert page.value(place).endswith("&methods=lrp-0")

        page.open(path.as_uri() + "#picture=2&overlay=0.3&methods=grad-cam")
        assert (page.value(name), page.value(shown)) == (NAMES[1], [True, False])
        assert page.value(opacity) == ["0.3"] * 2
        assert page.value("document.getElementById('opacity').value") == "30 %"
        page.value("location.hash = '#picture=99&overlay=nonsense&methods='")
        page.value("new Promise((done) => setTimeout(done, 50))")
        assert page.value("document.getElementById('place').textContent") == "3 / 3"
        assert page.value(shown) == [False, False] and not page.value(
            "document.getElementById('none').hidden"
        )

        for width in (320, 760, 1600):
            page.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=700,
                deviceScaleFactor=1,
                mobile=False,
            )
            assert page.value("document.documentElement.scrollWidth") <= width
        assert not page.complaints
