"""A language model's relevance of embeddings, over the gradient and against LXT: a decoder of SmolLM2-135M's sizes.

The weights are drawn, since the real ones are larger than what travels to a lent machine; `language_model.py` has
them.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import language_model as benchmark
from experiments.benchmarks.measure import alternate
from experiments.benchmarks.sections import Parts, Row, row
from experiments.benchmarks.sections.frameworks import PRECISIONS, Precision, Program, largest_error, use
from jxai import models


def parts(dry: bool) -> Parts:
    """A part for each precision and number of tokens."""
    if dry:
        return {"2 x 8 tokens, float32": functools.partial(compare, "float32", 2, 8, layers=1, repeats=1)}
    return {
        f"{batch} x {tokens} tokens, {precision}": functools.partial(compare, precision, batch, tokens)
        for batch, tokens in ((8, 512), (1, 128))
        for precision in PRECISIONS[::-1]  # as people run them, first
    }


def drawn(layers: int) -> models.Loaded:
    """A decoder of SmolLM2-135M's sizes with random weights."""
    config = models.DecoderConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        rope_theta=100000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    module = models.Decoder(config)
    variables = jax.jit(module.init)(jax.random.key(0), np.zeros((1, 4), np.int32))
    return models.Loaded(module, variables, None, models.WeightsReport((), (), ()))


def compare(
    precision: Precision, batch: int, tokens: int, *, layers: int = 30, repeats: int = 10
) -> Iterable[Row]:
    """Both composites, the gradient, and LXT on the same weights and tokens."""
    import torch  # pyright: ignore[reportMissingImports]

    from experiments.benchmarks import torch_device

    use(precision)
    model = drawn(layers)
    ids = np.random.default_rng(0).integers(49152, size=(batch, tokens))
    x, label = model.embed(jnp.asarray(ids)), f"{batch} x {tokens} tokens"
    gradient = Program(benchmark.ours(None), model, x)
    yield row(f"{label}, gradient: compiled in", gradient.compile_seconds, "s", precision=precision)
    benchmark.patch()
    theirs = torch_device.finished(benchmark.rival(benchmark.in_torch(model).to(torch_device.name()), ids))
    for name, composite in benchmark.COMPOSITES.items():
        explain = Program(benchmark.ours(composite), model, x)
        functions = {"jxai": explain, "gradient": gradient}
        times = alternate(functions | ({"LXT": theirs} if name == "AttnLRP" else {}), repeats)
        own, plain = f"{label}, {name}", ("jax's gradient", times["gradient"])
        yield row(own, times["jxai"], "s", rival=plain, goal="at most 1.3", precision=precision)
        compiled = ("gradient", gradient.compile_seconds)
        yield row(f"{own}: compiled in", explain.compile_seconds, "s", rival=compiled, precision=precision)
        if explain.bytes is not None and gradient.bytes is not None:
            held = ("jax's gradient", gradient.bytes / 1e9)
            yield row(f"{own}: memory", explain.bytes / 1e9, "GB", rival=held, precision=precision)
        if name == "AttnLRP":
            rival = ("LXT", times["LXT"])
            yield row(own, times["jxai"], "s", rival=rival, goal="at least 1", precision=precision)
            error = largest_error(explain(), theirs())
            goal = "at most 1e-3" if precision == "float32" else None
            yield row(f"{own}: largest difference from LXT's", error, goal=goal, precision=precision)
    del theirs
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
