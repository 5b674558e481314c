"""A model of one's own, named on the command line as MODULE:FUNCTION or FILE.py:FUNCTION.

The function takes no arguments and gives one of

- `(apply, variables)`: scores (N, K) = apply(variables, x) for images x (N, H, W, 3); `apply` may be a Linen module;
- an NNX module in evaluation mode, or a Keras model (backend JAX), called with x;
- an Equinox module, called with one image (3, H, W) as Equinox's layers take it.

None of these libraries but Flax is imported unless the model is one of theirs.
"""

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jxai.checks import printable, shown
from jxai.errors import InputError
from jxai.models import read_weights

Apply = Callable[[Any, jax.Array], Any]


def load_model(place: str, weights: Path | None) -> tuple[Apply, Any, bytes]:
    """What the function gives, with weights put in the place of its variables.

    Args:
        place: MODULE:FUNCTION, of an installed module or of a file MODULE.py in the current folder; or
            FILE.py:FUNCTION.
        weights: as `models.read_weights` reads it, with a tensor for every variable, named by the variable's path
            ("params.conv.kernel", also with "/"); None leaves the variables as they are.

    Returns:
        apply(variables, x), the variables, and a digest of the module's source.

    Raises:
        ValueError: there is no such module or function, it gives something else, or the weights do not fit.
        FileNotFoundError: there is no such file of weights.
    """
    module_name, colon, function_name = place.rpartition(":")
    if not colon or not module_name or not function_name:
        raise InputError(
            f"expected a model as MODULE:FUNCTION, got {place!r}: name a function that gives it, such "
            "as mymodule:make_model"
        )
    module = _module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        near = difflib.get_close_matches(function_name, dir(module), 3)
        raise InputError(
            f"expected a function {function_name} in {module_name}, got {shown(function)}: "
            + (f"did you mean {', '.join(near)}?" if near else "define it there")
        )
    apply, variables = _as_function(function(), place)
    if weights is not None:
        variables = _filled(variables, read_weights(weights), weights)
    source = getattr(module, "__file__", None)
    return apply, variables, hashlib.blake2b(Path(source).read_bytes() if source else b"").digest()


def _module(name: str) -> ModuleType:
    in_folder = Path(name) if name.endswith(".py") else Path(*name.split(".")).with_suffix(".py")
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # One that the module itself misses is that one's error.
            if error.name is None or not (name + ".").startswith(error.name + "."):
                raise
    if not in_folder.is_file():
        raise InputError(
            f"expected a module {printable(name)}, got none, nor a file {printable(in_folder)}: start jxai where it "
            "lies, or install it"
        )
    name = in_folder.stem
    spec = importlib.util.spec_from_file_location(name, in_folder.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look it up there
    spec.loader.exec_module(module)
    return module


def _as_function(model: Any, place: str) -> tuple[Apply, Any]:
    """A function of variables and images, and the variables."""
    if (
        isinstance(model, tuple)
        and len(model) == 2
        and (callable(model[0]) or isinstance(model[0], nn.Module))
    ):
        apply, variables = model
        return (apply.apply if isinstance(apply, nn.Module) else apply), variables
    for convert in (_nnx, _equinox, _keras):
        if (found := convert(model)) is not None:
            return found
    raise InputError(
        f"expected {place} to give (apply, variables), or a model of NNX, Equinox or Keras, got {shown(model)}: "
        "return one of these"
    )


def _nnx(model: Any) -> tuple[Apply, Any] | None:
    from flax import nnx

    if not isinstance(model, nnx.Module):
        return None
    graph, variables = nnx.split(model)
    return lambda variables, x: nnx.merge(graph, variables)(x), variables


def _equinox(model: Any) -> tuple[Apply, Any] | None:
    equinox = sys.modules.get("equinox")
    if equinox is None or not isinstance(model, equinox.Module):
        return None
    arrays, rest = equinox.partition(equinox.nn.inference_mode(model), equinox.is_array)

    def apply(arrays: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(equinox.combine(arrays, rest))(jnp.moveaxis(x, -1, 1))

    return apply, arrays


def _keras(model: Any) -> tuple[Apply, Any] | None:
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(model, keras.Model):
        return None
    if keras.backend.backend() != "jax":
        raise InputError(
            f"expected Keras on JAX, got its backend {keras.backend.backend()}: set KERAS_BACKEND=jax"
        )

    kinds = (model.trainable_variables, model.non_trainable_variables)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        ordered = ([variables[one.path] for one in kind] for kind in kinds)
        return model.stateless_call(*ordered, x, training=False)[0]

    return apply, {one.path: one.value for kind in kinds for one in kind}


def _filled(variables: Any, tensors: dict[str, np.ndarray], path: Path) -> Any:
    """The variables with the tensors of their names."""
    given = {name.replace("/", "."): tensor for name, tensor in tensors.items()}
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
    names = [_name(keys) for keys, _ in leaves]
    missing, left_over = sorted(set(names) - set(given)), sorted(set(given) - set(names))
    if missing or left_over:
        raise InputError(
            f"expected in {printable(path)} the model's {len(names)} variables, got none for {_some(missing)}, and "
            f"{_some(left_over)} that it has not: name the tensors as the variables, or have the function read them"
        )
    filled = []
    for name, (_, variable) in zip(names, leaves, strict=True):
        if given[name].shape != np.shape(variable):
            raise InputError(
                f"expected {name} of shape {np.shape(variable)}, got {given[name].shape} in {printable(path)}: give "
                "the weights of this model"
            )
        filled.append(jnp.asarray(given[name], jnp.result_type(variable)))
    return jax.tree_util.tree_unflatten(tree, filled)


def _name(keys: tuple[Any, ...]) -> str:
    """A variable's path with dots, without what NNX puts at its end."""
    return jax.tree_util.keystr(keys, simple=True, separator=".").removesuffix(".value")


def _some(names: list[str]) -> str:
    return (
        ", ".join(map(printable, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        or "none"
    )
