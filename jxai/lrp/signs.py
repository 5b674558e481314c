"""Which values are known to hold no negative number: there, half of many rules is zero and is not computed."""

import numpy as np

from jxai.lrp.graph import Equation, Value

_ALWAYS = {"abs", "exp", "exp2", "logistic", "square", "sqrt", "rsqrt", "erfc"}
_KEPT = (
    {
        "add",
        "add_any",
        "mul",
        "div",
        "reshape",
        "broadcast_in_dim",
        "squeeze",
        "expand_dims",
        "transpose",
        "slice",
    }
    | {
        "dynamic_slice",
        "dynamic_update_slice",
        "concatenate",
        "pad",
        "rev",
        "gather",
        "split",
        "copy",
        "copy_p",
    }
    | {
        "name",
        "convert_element_type",
        "reduce_sum",
        "reduce_max",
        "reduce_min",
        "reduce_window_sum",
        "cumsum",
    }
    | {
        "reduce_window_max",
        "reduce_window_min",
        "min",
        "optimization_barrier",
        "sort",
        "cummax",
        "cummin",
        "pow",
    }
    | {"sharding_constraint", "reduce_precision", "stop_gradient", "sqrt", "floor", "round", "ceil"}
    | {"stack", "tile", "unstack"}
)
# Operands that say where, not what.
_POSITIONS = {"dynamic_slice": 1, "gather": 1, "dynamic_update_slice": 2, "pow": 1}


def nonnegative(equation: Equation, known: set[Value]) -> bool:
    """Whether an operation's results hold no negative number.

    Args:
        equation: the operation.
        known: values that hold none.

    Returns:
        True where that is certain.
    """

    def holds(value: Value) -> bool:
        if value.literal is not None:
            return bool(np.all(np.asarray(value.literal) >= 0))
        return value in known

    name = equation.name
    if name in _ALWAYS or (name == "integer_pow" and equation.params["y"] % 2 == 0):
        return True
    if name == "max":
        return any(holds(v) for v in equation.inputs)
    if name == "clamp":
        return holds(equation.inputs[0])
    if name == "select_n":
        return all(holds(v) for v in equation.inputs[1:])
    if name == "mul" and equation.inputs[0] is equation.inputs[1]:
        return True
    if name in _KEPT or name == "integer_pow":
        return all(holds(v) for v in equation.inputs[: _POSITIONS.get(name)])
    return False
