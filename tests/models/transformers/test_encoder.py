"""BERT: sentences, padding, kinds of tokens, loops; values: test_golden.py."""

import jax
import numpy as np
import pytest

from jxai import models


def test_a_loop_and_layers_are_the_same(archive):
    one, other = archive("bert", scan=True, remat=True), archive("bert", scan=False)
    x = one.x.astype(np.float32)
    y = jax.jit(one.scores)(one.variables, x)
    np.testing.assert_allclose(y, jax.jit(other.scores)(other.variables, x), rtol=1e-5, atol=1e-5)


def test_sentences_are_means_of_what_is_there_and_of_length_one(archive):
    found = archive("bert")
    ids, mask = np.asarray(found.arrays["ids"]), np.ones((1, 7), bool)
    mask[:, 5:] = False
    model = models.Loaded(found.module, found.variables, None, models.WeightsReport((), (), ()))
    hidden = model.encode(model.embed(ids), mask)
    sentence = model.apply(hidden, mask, method="sentence")
    mean = np.asarray(hidden)[:, :5].mean(1)
    np.testing.assert_allclose(sentence, mean / np.linalg.norm(mean), rtol=1e-5, atol=1e-6)
    # What stands at places that are not there changes nothing, and neither do the places.
    other = ids.copy()
    other[:, 5:] = 0
    np.testing.assert_array_equal(model.encode(model.embed(other), mask)[:, :5], hidden[:, :5])
    short = model.encode(model.embed(ids[:, :5]))
    np.testing.assert_allclose(hidden[:, :5], short, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.apply(short, method="sentence"), sentence, rtol=1e-4, atol=1e-5)


def test_kinds_of_tokens_are_zero_where_none_are_given(archive):
    found = archive("bert")
    x = found.x.astype(np.float32)
    encode = jax.jit(lambda types: found.module.apply(found.variables, x, None, types, method="encode"))
    np.testing.assert_allclose(encode(None), encode(np.zeros((1, 7), np.int32)), rtol=1e-5, atol=1e-6)
    assert np.abs(encode(None) - encode(np.ones((1, 7), np.int32))).max() > 1e-3
    for wrong, message in (
        (np.zeros((1, 6), np.int32), r"expected types of shape \(1, 7\), got \(1, 6\)"),
        (np.full((1, 7), 2, np.int32), "expected tokens from 0 to 1, got 2 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            found.module.apply(found.variables, x, None, wrong, method="encode")


def test_configurations():
    sizes = {"vocab_size": 7, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 2
    read = models.EncoderConfig.from_json
    assert read({**sizes, "architectures": ["BertModel"], "id2label": {"0": "a", "1": "b"}}).num_labels == 0
    classes = {**sizes, "architectures": ["BertForSequenceClassification"]}
    assert (
        read(classes).num_labels == 2 and read({**classes, "id2label": dict.fromkeys("abc")}).num_labels == 3
    )
    for changed, message in (
        (
            {"position_embedding_type": "relative_key"},
            "expected position_embedding_type absolute, got 'relative",
        ),
        ({"hidden_size": 9}, "expected hidden_size as a multiple of num_attention_heads 2, got 9"),
        ({"hidden_act": "mish"}, "expected hidden_act among gelu"),
        ({"vocab_size": None}, "expected vocab_size in the configuration, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            read({**sizes, **changed})
    with pytest.raises(ValueError, match="expected a pooler below 3 labels, got none"):
        models.EncoderConfig(**sizes, pooler=False, num_labels=3)
    gpt = {"vocab_size": 7, "n_embd": 8, "n_layer": 1, "n_head": 2}
    assert models.GPT2Config.from_json(gpt).n_inner == 32
    for changed, message in (
        ({"n_head": 3}, "expected n_embd as a multiple of n_head 3, got 8"),
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "expected scale_attn_by_inverse_layer_idx False, got True",
        ),
        ({"n_layer": None}, "expected n_layer in the configuration, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            models.GPT2Config.from_json({**gpt, **changed})
