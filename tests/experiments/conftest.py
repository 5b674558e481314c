import dataclasses

import pytest

from configs import CONFIGS, Config, Pretraining, latin_quick


@pytest.fixture(autouse=True, scope="session")
def prepared(tmp_path_factory):
    """Domains are prepared into a folder of this session's, never into the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("JXAI_DATA", str(tmp_path_factory.mktemp("data")))
    yield
    patch.undo()


@pytest.fixture
def tiny() -> Config:
    """The quickstart's configuration, as small as it trains at all."""
    return dataclasses.replace(
        latin_quick(),
        width=8,
        head_width=8,
        queries=3,
        pretraining=Pretraining(steps=4),
        steps=4,
        eval_every=2,
        validation_episodes=4,
    )


@pytest.fixture
def tiny_quickstart(tiny, monkeypatch) -> Config:
    """`tiny` in the place of the quickstart's own configuration."""
    monkeypatch.setitem(CONFIGS, "latin-quick", lambda: tiny)
    return tiny
