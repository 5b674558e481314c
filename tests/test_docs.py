"""The code in README.md and docs/ runs as it stands."""

import re
from pathlib import Path

import pytest

from jxai.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
# Tutorials are notebooks, which the site's build executes (tests/test_site.py); their links are read here.
PAGES = [ROOT / "README.md", ROOT / "experiments/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"```.*?```", re.DOTALL)
# Ten seconds of small programs each; README.md shows in the quick tests that code of pages runs.
LONG = {"attribution.md", "coming_from.md", "data.md", "explain.md", "few_shot.md", "index.md", "text.md"}


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.name in LONG)) for page in PAGES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))
    names = {}  # a page is one session
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", CODE.sub("", page.read_text("utf-8"))):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    text = page.read_text("utf-8")
    scripts = re.findall(r"(?<!tests/)\bexperiments/[\w/]+\.py", text)
    modules = re.findall(
        r"python3? -m (experiments[.\w]*\w)", text.replace("experiments.benchmarks.NAME", "")
    )
    for path in [ROOT / script for script in scripts] + [ROOT / name.replace(".", "/") for name in modules]:
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {path}"
    commands = re.findall(r"(?:^|\n|`|bin/)jxai (\w+)", "\n".join(CODE.findall(text)))
    assert set(commands) <= set(COMMANDS), page.name
