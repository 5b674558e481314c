"""What transformers share: norms, attention, MLPs, masks, layers one after another.

Tokens are (N, T, C). Weights may be of bfloat16; what is computed is at least of float32, and of float64 where tokens
or weights are. Operations are written plainly, so that relevance travels by the rules of what they are: what has no
module of its own is named by a scope ("attention/weights", "attention/context", "mlp/neurons").
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import check_choice, shown, values
from jxai.errors import InputError, InputTypeError
from jxai.models.transformers.rope import rotate

init_normal = nn.initializers.normal(0.02)  # BERT's and GPT-2's, and of all that followed

# By Hugging Face's names.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


class RMSNorm(nn.Module):
    """Each token divided by the root of its mean square, times weights.

    See *Root Mean Square Layer Normalization* by Zhang and Sennrich, 2019.

    Attributes:
        epsilon: added to the mean square.
        offset: what is added to the weights: 1 in Gemma, whose file has them around 0.
    """

    epsilon: float = 1e-6
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The normalized tokens, of x's shape (..., C)."""
        scale = self.param("scale", nn.initializers.constant(1 - self.offset), (x.shape[-1],), jnp.float32)
        scale = scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        root = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x * root * (scale + self.offset if self.offset else scale)


class Attention(nn.Module):
    """Attention of every token to those that a mask allows, with fewer heads of keys and values than of queries.

    See *Attention Is All You Need* by Vaswani et al., 2017, and *GQA* by Ainslie et al., 2023.

    Attributes:
        num_heads: heads of queries.
        num_kv_heads: heads of keys and values, a divisor of `num_heads`; each serves as many in a row.
        head_dim: channels of a head.
        use_bias: whether queries, keys and values have biases.
        out_bias: whether the output projection has one.
        scale: what the products of queries and keys are multiplied by.
        qk_norm: makes the norm of queries' and keys' heads, of a name; None for none.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    use_bias: bool
    out_bias: bool
    scale: float
    qk_norm: Callable[..., nn.Module] | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Any = None, rotation: tuple[jax.Array, jax.Array] | None = None
    ) -> jax.Array:
        """Output of the attention.

        Args:
            x: tokens, (N, T, C).
            mask: which key (last axis) a query may see, of a shape that broadcasts to (N, T, T); None for all.
            rotation: cosines and sines, (T, head_dim) each, by which queries and keys are turned; None for not.

        Returns:
            (N, T, C).
        """
        n, t, channels = x.shape

        def heads(name: str, number: int) -> jax.Array:
            y = dense(number * self.head_dim, name=name, use_bias=self.use_bias)(x)
            return y.reshape(n, t, number, self.head_dim)

        query, key = heads("query", self.num_heads), heads("key", self.num_kv_heads)
        value = heads("value", self.num_kv_heads)
        if self.qk_norm is not None:
            query, key = self.qk_norm(name="query_norm")(query), self.qk_norm(name="key_norm")(key)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        query = query.reshape(n, t, self.num_kv_heads, -1, self.head_dim)
        scores = jnp.einsum("ntkgd,nskd->nkgts", query, key) * self.scale
        scores = scores.reshape(n, self.num_heads, t, t)
        if mask is not None:
            allowed = jnp.broadcast_to(mask, (n, t, t))[:, None]
            scores = jnp.where(allowed, scores, jnp.finfo(scores.dtype).min)
        with jax.named_scope("weights"):
            weights = jax.nn.softmax(scores, axis=-1)
        weights = weights.reshape(n, self.num_kv_heads, -1, t, t)
        context = jnp.einsum("nkgts,nskd->ntkgd", weights, value)
        with jax.named_scope("context"):
            context = context.reshape(n, t, self.num_heads * self.head_dim)
        return dense(channels, name="out", use_bias=self.out_bias)(context)


class MLP(nn.Module):
    """Up, activation, down; with a gate, the activation is the gate's and multiplies what goes up.

    See *GLU Variants Improve Transformer* by Shazeer, 2020.

    Attributes:
        width: hidden units.
        activation: a name of `ACTIVATIONS`.
        use_bias: whether the layers have biases.
        gated: whether there is a gate.
    """

    width: int
    activation: str
    use_bias: bool
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Output of the MLP, of x's shape (N, T, C)."""
        activation = ACTIVATIONS[self.activation]
        up = dense(self.width, name="up", use_bias=self.use_bias)(x)
        gate = dense(self.width, name="gate", use_bias=self.use_bias)(x) if self.gated else None
        with jax.named_scope("neurons"):
            hidden = activation(up) if gate is None else activation(gate) * up
        return dense(x.shape[-1], name="down", use_bias=self.use_bias)(hidden)


def dense(features: int, *, name: str, use_bias: bool) -> nn.Dense:
    """A dense layer that computes in the wider type of its input and its weights."""
    return nn.Dense(features, use_bias=use_bias, kernel_init=init_normal, name=name)


def layer_norm(epsilon: float, *, name: str | None = None) -> nn.LayerNorm:
    """Layer norm with the variance as the mean of squared deviations, as PyTorch has it."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)


def computed(x: jax.Array) -> jax.Array:
    """Floats as they are computed with: bfloat16 and float16 as float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def causal_mask(length: int, *, window: int | None = None) -> np.ndarray:
    """(T, T): each query sees its own and earlier keys; with a window, only so many, its own among them."""
    distance = np.arange(length)[:, None] - np.arange(length)
    return (distance >= 0) & (distance < (length if window is None else window))


def with_padding(allowed: Any, mask: Any) -> Any:
    """A mask (T, T) or None, and one of tokens (N, T) or None, as one that broadcasts to (N, T, T), or None."""
    if mask is None:
        return allowed
    keys = jnp.asarray(mask, bool)[:, None]
    return keys if allowed is None else allowed[None] & keys


def run_layers(
    owner: nn.Module, x: jax.Array, step: Callable[[nn.Module, jax.Array, Any], jax.Array], *, each: Sequence
) -> jax.Array:
    """Tokens through all layers: those of a scan, "layers", or "layer0", "layer1", ..., as `make_layers` gave them.

    Args:
        owner: the module that owns them, with `scan` and `remat`.
        x: tokens (N, T, C).
        step: of a layer, tokens and the layer's entry of `each` to tokens.
        each: a number for each layer, such as its kind.

    Returns:
        Tokens (N, T, C).
    """
    scan: bool = owner.scan  # pyright: ignore[reportAttributeAccessIssue]

    def body(layer: nn.Module, x: jax.Array, own: Any) -> tuple[jax.Array, None]:
        return step(layer, x, own), None

    alike = len(set(each)) == 1
    if owner.remat:  # pyright: ignore[reportAttributeAccessIssue]
        # Within a loop nothing is merged anyway.
        body = nn.remat(body, prevent_cse=not scan, static_argnums=() if scan and not alike else (2,))
    if not scan:
        for index, own in enumerate(each):
            x, _ = body(getattr(owner, f"layer{index}"), x, own)
        return x
    loop: Any = nn.scan(
        (lambda layer, x, _: body(layer, x, each[0])) if alike else body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=len(each),
    )
    x, _ = loop(owner.layers, x, None if alike else jnp.asarray(each))  # pyright: ignore[reportAttributeAccessIssue]
    return x


def make_layers(owner: nn.Module, make: Callable[[], nn.Module], number: int) -> None:
    """Give a module in its `setup` what `run_layers` runs.

    Args:
        owner: the module, with `scan`.
        make: of no arguments to a layer.
        number: of layers.
    """
    if owner.scan:  # pyright: ignore[reportAttributeAccessIssue]
        owner.layers = make()  # pyright: ignore[reportAttributeAccessIssue]
    else:
        for index in range(number):
            setattr(owner, f"layer{index}", make())


def check_module(module: nn.Module, config: type) -> None:
    """Refuse a module whose configuration is of another class, or whose `scan` and `remat` are no booleans."""
    given = module.config  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(given, config):
        raise InputTypeError(
            f"expected config as a {config.__name__}, got {shown(given)}: make one, or take its from_json"
        )
    for name in ("scan", "remat"):
        check_choice(name, getattr(module, name, False), (True, False))


def check_tokens(ids: Any, *, vocab_size: int, context: int) -> None:
    """Refuse what are no tokens of a vocabulary, none, or too many.

    Args:
        ids: what was given; integers (N, T) are right.
        vocab_size: what they have to be below; looked at where they are known.
        context: the most tokens of a sequence.

    Raises:
        TypeError: they are no integers.
        ValueError: they have another rank, there are none or too many, or one is of no word.
    """
    if not isinstance(ids, jax.Array | np.ndarray) or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputTypeError(
            f"expected tokens as an array of integers (N, T), got {shown(ids)}: give jnp.asarray of their numbers"
        )
    check_sequence(ids, rank=2, what="tokens (N, T)", context=context)
    known = values(ids) if isinstance(ids, jax.Array) else ids
    if known is not None and (known.min() < 0 or known.max() >= vocab_size):
        raise InputError(
            f"expected tokens from 0 to {vocab_size - 1}, got {known.min()} to {known.max()}: take the tokenizer "
            "of this model"
        )


def check_sequence(x: Any, *, rank: int, what: str, context: int, channels: int | None = None) -> None:
    """Refuse what is no batch of sequences that a model can take.

    Args:
        x: what was given.
        rank: its number of axes.
        what: what is right.
        context: the most tokens of a sequence.
        channels: of a token, where they are.

    Raises:
        TypeError: it is no array, or where it has channels not of floats.
        ValueError: it has another rank, no tokens, more than the context, or other channels.
    """
    if not isinstance(x, jax.Array | np.ndarray) or not (
        channels is None or jnp.issubdtype(x.dtype, jnp.floating)
    ):
        raise InputTypeError(f"expected {what}, got {shown(x)}: give an array, such as `embed` returns")
    if x.ndim != rank:
        raise InputError(f"expected {what}, got shape {x.shape}: one sequence is x[None]")
    if not x.shape[0] or not x.shape[1]:
        raise InputError(f"expected {what} with at least one token, got shape {x.shape}: the prompt is empty")
    if x.shape[1] > context:
        raise InputError(
            f"expected at most {context} tokens, the model's context, got {x.shape[1]}: shorten the prompt"
        )
    if channels is not None and x.shape[2] != channels:
        raise InputError(
            f"expected {what} of {channels} channels, got {x.shape[2]}: take this model's `embed`"
        )


def check_mask(mask: Any, x: Any) -> None:
    """Refuse a mask that is not one of the tokens, (N, T)."""
    if mask is None:
        return
    if not isinstance(mask, jax.Array | np.ndarray) or not (
        mask.dtype == bool or jnp.issubdtype(mask.dtype, jnp.integer)
    ):
        raise InputTypeError(
            f"expected a mask of booleans (N, T), got {shown(mask)}: true where there is a token"
        )
    if mask.shape != x.shape[:2]:
        raise InputError(
            f"expected a mask of shape {x.shape[:2]}, got {mask.shape}: true where there is a token"
        )
