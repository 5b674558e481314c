"""A language model and sentence encoder of a few numbers in plain JAX, of the form that `jxai.text` asks for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

VOCABULARY, WIDTH, HEADS, HIDDEN, LAYERS = 11, 6, 2, 8, 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tiny:
    params: dict
    scan: bool = dataclasses.field(default=False, metadata={"static": True})

    def embed(self, ids):
        return self.params["embedding"][ids]

    def encode(self, x, mask=None):
        length = x.shape[1]
        allowed = jnp.tril(jnp.ones((length, length), bool))[None]
        if mask is not None:
            allowed = allowed & mask[:, None, :]
        if self.scan:

            def layer(x, params):
                with jax.named_scope("layers"):
                    return block(params, x, allowed), None

            x, _ = jax.lax.scan(layer, x, self.params["layers"])
        else:
            for i in range(LAYERS):
                with jax.named_scope(f"layer{i}"):
                    x = block(jax.tree.map(lambda p, i=i: p[i], self.params["layers"]), x, allowed)
        return norm(x)

    def unembed(self, hidden):
        return hidden @ self.params["embedding"].T

    def sentence(self, hidden, mask):
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / jnp.sqrt((mean**2).sum(-1, keepdims=True))

    def __call__(self, ids, mask=None):
        return self.unembed(self.encode(self.embed(ids), mask))


def norm(x):
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def block(p, x, allowed):
    n, t, _ = x.shape
    with jax.named_scope("attention"):
        q, k, v = ((norm(x) @ p[name]).reshape(n, t, HEADS, -1) for name in ("query", "key", "value"))
        logits = jnp.einsum("nthd,nshd->nhts", q, k) / np.sqrt(WIDTH / HEADS)
        with jax.named_scope("weights"):
            weights = jax.nn.softmax(jnp.where(allowed[:, None], logits, -1e30), axis=-1)
        with jax.named_scope("context"):
            context = jnp.einsum("nhts,nshd->nthd", weights, v).reshape(n, t, -1)
        x = x + context @ p["out"]
    with jax.named_scope("mlp"):
        h = norm(x)
        with jax.named_scope("neurons"):
            neurons = jax.nn.silu(h @ p["gate"]) * (h @ p["up"])
        return x + neurons @ p["down"]


def tiny(seed=0, scan=False, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = {name: (WIDTH, WIDTH) for name in ("query", "key", "value", "out")}
    shapes |= {"gate": (WIDTH, HIDDEN), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
    layers = {k: jnp.asarray(rng.normal(size=(LAYERS, *s)) * 0.5, dtype) for k, s in shapes.items()}
    return Tiny(
        {"embedding": jnp.asarray(rng.normal(size=(VOCABULARY, WIDTH)), dtype), "layers": layers}, scan
    )
