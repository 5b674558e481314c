"""What jaxprs hold in other places from one version of JAX to the next.

Up to JAX 0.10 a `ClosedJaxpr` is a `Jaxpr` with its constants, and a scan's operands are counted in its parameters.
From 0.11 on one class is both, whose `jaxpr` is itself, and a scan has a tree of its operands.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.extend.core import Literal

# The equations that call one jaxpr, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
# Where nothing differentiates the equations as they stand, of these only the function itself counts.
CALLS |= {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "call_jaxpr",
}


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr's equations and variables (`core.Jaxpr`), and the constants that belong to its `constvars`."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def evaluated(
    closed: Any, arguments: Sequence[Any], apply: Callable[[Any, list[Any]], Sequence[Any]]
) -> list[Any]:
    """What a jaxpr gives for values of any kind.

    Args:
        closed: the jaxpr, with its constants.
        arguments: a value an input.
        apply: of an equation and its operands' values to those of its results; what no input moves comes as it is.

    Returns:
        A value an output.
    """
    jaxpr, constants = opened(closed)
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        with equation.ctx.manager:
            results = apply(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def scan_operands(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried; what follows is scanned over.

    Args:
        params: of the scan's equation.
    """
    if "ft_in" in params:
        constants, carried, _ = (len(list(part.vals)) for part in params["ft_in"].unpack())
        return constants, carried
    return params["num_consts"], params["num_carry"]
