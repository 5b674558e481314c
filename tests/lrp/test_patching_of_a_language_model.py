"""Relevance patching of SmolLM2 against true patching of every MLP's output, beside attribution patching."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp, models

pytestmark = pytest.mark.slow

CLEAN = "When Mary and John went to the store, John gave a drink to"
PATCHED = "When Mary and John went to the store, Mary gave a drink to"
NAMES = " Mary", " John"
# True patching takes a forward pass for each block and position.
BLOCKS = range(0, 30, 4)


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("gguf")
    try:
        return models.smollm2(scan=False)
    except FileNotFoundError as error:
        pytest.skip(str(error))


def of_mlps(function, change):
    """Call a function, where `change` of (number of the block, its MLP's output) stands in the output's place."""

    def interceptor(next_fun, args, kwargs, context):
        y, path = next_fun(*args, **kwargs), context.module.path
        mlp = context.method_name == "__call__" and path[-1] == "mlp"
        return change(int(path[0].removeprefix("layer")), y) if mlp else y

    with nn.intercept_methods(interceptor):
        return function()


def test_estimates_are_nearer_to_patching_than_those_of_gradients(model):
    ids = [jnp.asarray([model.tokenizer.encode(text).ids]) for text in (CLEAN, PATCHED)]
    first, second = (model.tokenizer.encode(name).ids[0] for name in NAMES)
    (clean, patched), tokens = map(model.embed, ids), ids[0].shape[1]
    assert ids[1].shape[1] == tokens

    def measure(model, x):
        scores = model.unembed(model.encode(x)[:, -1])
        return scores[:, first] - scores[:, second]

    @jax.jit
    def outputs(model, x):
        found = {}
        of_mlps(lambda: model.encode(x), lambda block, y: found.setdefault(block, y))
        return found

    @jax.jit
    def with_patch(model, x, given, block, position):
        """What is measured, with one MLP's output at one position as given."""
        at = jnp.arange(tokens) == position
        put = lambda i, y: jnp.where((i == block) & at[None, :, None], given[i], y)  # noqa: E731
        return of_mlps(lambda: measure(model, x), put)[0]

    given = outputs(model, patched)
    plain = float(with_patch(model, clean, given, -1, 0))
    true = np.array([[with_patch(model, clean, given, i, t) - plain for t in range(tokens)] for i in BLOCKS])
    taps = [f"layer{i}/mlp" for i in BLOCKS]

    def correlation(composite):
        def estimate(model, clean, patched):
            f = lambda x: measure(model, x)  # noqa: E731
            return lrp.relevance_patching(f, clean, patched, taps=taps, composite=composite)

        found = jax.jit(estimate)(model, clean, patched)
        ours = np.stack([np.asarray(found[tap]).sum((0, 2)) for tap in taps])
        return np.corrcoef(ours.ravel(), true.ravel())[0, 1]

    # Over all 30 blocks: 0.91 with CP-LRP, 0.68 with AttnLRP, 0.48 with gradients; without the first block, whose MLP
    # has the largest effects and is the least linear, 0.84, 0.90 and 0.95.
    relevance, gradient = correlation(lrp.CPLRP(epsilon=0.0)), correlation(None)
    assert relevance > 0.8 and relevance > gradient + 0.2, (relevance, gradient)
