"""How values flow through a graph: which carry relevance, which are held constant, which are functions of one value.

A value is independent of the inputs, or held (it depends on them but carries no relevance, as what a comparison or
a statistic gives), or it varies.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Iterator

import jax.numpy as jnp

from jxai.lrp.graph import LINEAR_NAME, Equation, Graph, Value
from jxai.lrp.operation import Kind
from jxai.lrp.rule import Constant, Rule


class Status(enum.IntEnum):
    """What a value is to relevance."""

    INDEPENDENT = 0
    HELD = 1
    VARYING = 2


# A result's entry is a function of the operands' entries at the same place (or at the same place after broadcasting).
SHIFTS = {"add", "sub", "add_any"}
SCALES = {"mul", "div", "neg"}
COPIES = {"convert_element_type", "copy", "copy_p", "name", "reduce_precision"}
RECTIFIERS = {"max", "min"}
ELEMENTWISE = (
    {"abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "clamp", "cos", "cosh"}
    | {"digamma", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "integer_pow", "lgamma", "log"}
    | {
        "log1p",
        "logistic",
        "nextafter",
        "pow",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "sign",
        "sin",
        "sinh",
        "sqrt",
    }
    | {"square", "tan", "tanh"}
    | SHIFTS
    | SCALES
    | COPIES
    | RECTIFIERS
)
# Linear in what varies, or choosing among it: ratios flow back by automatic differentiation.
MOVES = (
    {"argsort", "broadcast_in_dim", "concatenate", "cummax", "cummin", "device_put", "dynamic_slice"}
    | {"dynamic_update_slice", "expand_dims", "gather", "optimization_barrier", "pad", "pvary", "reduce_max"}
    | {"reduce_min", "reduce_window_max", "reduce_window_min", "reshape", "rev", "scatter", "scatter-add"}
    | {"scatter_add", "select_n", "sharding_constraint", "slice", "sort", "split", "squeeze", "stack", "tile"}
    | {"top_k", "transpose", "unstack"}
    | COPIES
    | RECTIFIERS
)
MEANS = {"reduce_sum", "reduce_window_sum", "cumsum"}
# JAX has no derivative for these, so that relevance cannot so much as be stopped behind them.
OPAQUE = {"while", "pure_callback", "io_callback"}
NESTED = {"scan", "cond", "checkpoint", "remat", "remat2"}
_RESHAPES = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose"} | COPIES


@dataclasses.dataclass(eq=False)
class Flow:
    """What is known of the values of a graph.

    Attributes:
        status: of every value.
        root: of a varying value, the value whose entries alone it is a function of, entry by entry.
        held_uses: operands (equation, index) that carry no relevance although they vary: statistics.
        softmax: the exponentials that begin a softmax, their sums, and the divisions that end it.
        tokens: integer values that stand for the integers of the input of that index.
        live: varying values whose relevance reaches an output.
        producer: the equation that gives a value.
        uses: the equations that take a value.
    """

    status: dict[Value, Status] = dataclasses.field(default_factory=dict)
    root: dict[Value, Value] = dataclasses.field(default_factory=dict)
    held_uses: set[tuple[Equation, int]] = dataclasses.field(default_factory=set)
    softmax: set[Equation] = dataclasses.field(default_factory=set)
    tokens: dict[Value, int] = dataclasses.field(default_factory=dict)
    live: set[Value] = dataclasses.field(default_factory=set)
    producer: dict[Value, Equation] = dataclasses.field(default_factory=dict)
    uses: dict[Value, list[Equation]] = dataclasses.field(default_factory=dict)

    def varies(self, value: Value) -> bool:
        """Whether a value varies."""
        return self.status.get(value, Status.INDEPENDENT) is Status.VARYING

    def independent(self, value: Value) -> bool:
        """Whether a value does not depend on the inputs."""
        return self.status.get(value, Status.INDEPENDENT) is Status.INDEPENDENT

    def known_independent(self, value: Value) -> bool:
        """Whether a value was found not to depend on the inputs."""
        return self.status.get(value) is Status.INDEPENDENT

    def carriers(self, equation: Equation) -> list[Value]:
        """The operands that carry relevance."""
        return [
            v for i, v in enumerate(equation.inputs) if self.varies(v) and (equation, i) not in self.held_uses
        ]

    def elementwise(self, equation: Equation) -> bool:
        """Whether the result is a function of one root's entries."""
        if equation.name not in ELEMENTWISE or equation in self.softmax:
            return False
        if equation.name == "select_n" and self.independent(equation.inputs[0]):
            return False  # a mask, which moves entries
        carriers = self.carriers(equation)
        roots = {self.root[v] for v in carriers}
        return len(roots) == 1 and all(
            v.shape == next(iter(roots)).shape for v in (*carriers, *equation.outputs)
        )

    def chain(self, value: Value) -> list[Equation]:
        """The operations from a value's root to it, in order of need."""
        found: dict[Equation, None] = {}
        pending = [value]
        while pending:
            one = pending.pop()
            if self.root[one] is one:
                continue
            equation = self.producer[one]
            found[equation] = None
            pending.extend(self.carriers(equation))
        return list(found)


def analyse(
    graph: Graph,
    statuses: Iterable[Status],
    tokens: dict[Value, int],
    rule_of: Callable[[Equation, Kind], Rule | None],
) -> Flow:
    """Follow values from the inputs on.

    Args:
        graph: the graph.
        statuses: of its inputs.
        tokens: the inputs that hold integers, with their indices.
        rule_of: the composite's rule for an operation, asked where one may hold its result constant.

    Returns:
        What was found.
    """
    flow = Flow(tokens=dict(tokens))
    flow.status.update(zip(graph.inputs, statuses, strict=True))
    flow.root.update({v: v for v in graph.inputs})
    for equation in graph.equations:
        flow.producer.update(dict.fromkeys(equation.outputs, equation))
        for value in equation.inputs:
            flow.uses.setdefault(value, []).append(equation)
    for equation in graph.equations:
        if equation.name == "div":
            flow.softmax |= _softmax(flow, equation)
    flow.status.update(dict.fromkeys(graph.constants, Status.INDEPENDENT))
    for equation in graph.equations:
        _follow(flow, graph, equation, rule_of)
    _find_live(flow, graph)
    return flow


def kind_of(flow: Flow, equation: Equation) -> Kind:
    """What an operation is to a rule, on its own.

    Args:
        flow: what is known of the values.
        equation: the operation.

    Returns:
        Its kind.
    """
    name, carriers = equation.name, flow.carriers(equation)
    if equation.primitive is None:
        return Kind.MODULE
    if name in ("conv_general_dilated", "dot_general") or equation.params.get("name") == LINEAR_NAME:
        kernel = kernel_index(flow, equation)
        if kernel is None:
            return Kind.CONTRACTION
        return Kind.DENSE if name == "dot_general" else Kind.CONVOLUTION
    if equation in flow.softmax:
        return Kind.SOFTMAX
    if name == "gather" and not carriers:
        return Kind.EMBEDDING
    if flow.elementwise(equation):
        return Kind.SHIFT if name in SHIFTS else Kind.MOVE if name in SCALES | COPIES else Kind.ACTIVATION
    if name in SHIFTS:
        return Kind.SUM if len(carriers) > 1 else Kind.SHIFT
    if name == "mul" or (name == "div" and not flow.varies(equation.inputs[1])):
        return Kind.PRODUCT if len(carriers) > 1 else Kind.MOVE
    if name == "div" and (equation, 1) in flow.held_uses:
        return Kind.MOVE
    if name in MEANS:
        return Kind.MEAN
    if name in NESTED:
        return Kind.NESTED
    return Kind.MOVE if name in MOVES else Kind.OTHER


def kernel_index(flow: Flow, equation: Equation) -> int | None:
    """Which operand of a contraction is its kernel, or None where no operand is independent of the inputs."""
    if equation.name == "dot_general":
        found = [i for i, v in enumerate(equation.inputs) if flow.independent(v)]
        return found[0] if found else None
    last = len(equation.inputs) - 1
    return last if flow.independent(equation.inputs[last]) else None


def _follow(
    flow: Flow, graph: Graph, equation: Equation, rule_of: Callable[[Equation, Kind], Rule | None]
) -> None:
    """The status, root and tokens of an equation's results."""
    statuses = [flow.status.get(v, Status.INDEPENDENT) for v in equation.inputs]
    status = Status(max(statuses, default=Status.INDEPENDENT))
    root = None
    if status is Status.VARYING:
        _hold_statistics(flow, equation)
        root = flow.root[flow.carriers(equation)[0]] if flow.elementwise(equation) else None
        if equation.name == "stop_gradient" or isinstance(
            rule_of(equation, kind_of(flow, equation)), Constant
        ):
            status = Status.HELD
    elif status is Status.HELD and (found := [flow.tokens[v] for v in equation.inputs if v in flow.tokens]):
        if equation.name == "gather" and flow.independent(equation.inputs[0]):
            status = Status.VARYING
        if len(set(found)) == 1 and _keeps_places(graph.inputs[found[0]], equation):
            flow.tokens.update(dict.fromkeys(equation.outputs, found[0]))
        elif status is Status.VARYING:
            status = Status.HELD
    for value in equation.outputs:
        floats = jnp.issubdtype(value.dtype, jnp.inexact)
        flow.status[value] = status if floats else Status(min(status, Status.HELD))
        flow.root[value] = value if root is None else root


def _keeps_places(integers: Value, equation: Equation) -> bool:
    """Whether each entry of the results stands for the integer at the same place, in front of any further axes."""
    axes = len(integers.shape)
    if any(value.shape[:axes] != integers.shape for value in equation.outputs):
        return False
    if equation.name == "broadcast_in_dim":
        return equation.params["broadcast_dimensions"][:axes] == tuple(range(axes))
    return equation.name in ELEMENTWISE | {"reshape", "expand_dims", "squeeze", "gather"}


def _hold_statistics(flow: Flow, equation: Equation) -> None:
    """Normalisation layers take their statistics as constants (Achtibat et al. 2024, section 3.3.2)."""
    if len(equation.inputs) != 2 or len({flow.root[v] for v in flow.carriers(equation)}) < 2:
        return
    first, second = equation.inputs
    if equation.name == "sub" and _is_mean_of(flow, second, first):
        flow.held_uses.add((equation, 1))
    elif equation.name in ("mul", "div") and equation not in flow.softmax:
        if _is_norm_of(flow, second, first):
            flow.held_uses.add((equation, 1))
        elif equation.name == "mul" and _is_norm_of(flow, first, second):
            flow.held_uses.add((equation, 0))


def _sources(flow: Flow, value: Value, through: set[str]) -> Iterator[Value]:
    """A value and those that it comes from by some operations alone."""
    while True:
        yield value
        equation = flow.producer.get(value)
        if equation is None or equation.name not in through:
            return
        following = [v for v in equation.inputs if v.literal is None and not flow.known_independent(v)]
        if len(following) != 1:
            return
        value = following[0]


def _is_mean_of(flow: Flow, mean: Value, value: Value) -> bool:
    """Whether `mean` is the mean of `value` over some axes, reshaped or broadcast."""
    origins = set(_sources(flow, value, _RESHAPES))
    scale = 1.0
    for one in _sources(flow, mean, _RESHAPES | {"mul", "div"}):
        equation = flow.producer.get(one)
        if equation is None:
            return False
        if equation.name == "reduce_sum":
            given = equation.inputs[0]
            count = math.prod(given.shape) / max(1, math.prod(one.shape))
            mean_of_all = abs(scale * count - 1) < 1e-3
            return mean_of_all and not origins.isdisjoint(_sources(flow, given, _RESHAPES))
        if equation.name in ("mul", "div"):
            numbers = [v.literal for v in equation.inputs if v.literal is not None]
            if len(numbers) != 1 or (equation.name == "div" and equation.inputs[1].literal is None):
                return False
            scale = scale / float(numbers[0]) if equation.name == "div" else scale * float(numbers[0])
    return False


def _is_norm_of(flow: Flow, norm: Value, value: Value) -> bool:
    """Whether `norm` is a square root, or its inverse, of a statistic of what `value` comes from."""
    origins = _ancestors(flow, value)
    for one in _sources(flow, norm, ELEMENTWISE | _RESHAPES):
        equation = flow.producer.get(one)
        if equation is not None and _is_root(equation):
            return not origins.isdisjoint(_ancestors(flow, one))
    return False


def _is_root(equation: Equation) -> bool:
    if equation.name == "pow":
        exponent = equation.inputs[1].literal
        return exponent is not None and abs(float(exponent)) == 0.5
    return equation.name in ("sqrt", "rsqrt")


def _ancestors(flow: Flow, value: Value) -> set[Value]:
    """A value and all that it comes from by functions of single entries, reshaping and sums."""
    found, pending = {value}, [value]
    while pending:
        equation = flow.producer.get(pending.pop())
        if equation is not None and equation.name in ELEMENTWISE | _RESHAPES | MEANS | {"reduce_max"}:
            new = [v for v in equation.inputs if v.literal is None and not flow.known_independent(v)]
            pending += [v for v in new if v not in found]
            found.update(new)
    return found


def _softmax(flow: Flow, division: Equation) -> set[Equation]:
    """The exponential, the sum and this division, which ends a softmax; empty where it does not."""
    numerator, denominator = division.inputs
    for one in _sources(flow, denominator, _RESHAPES):
        equation = flow.producer.get(one)
        if equation is not None and equation.name == "reduce_sum":
            beginning = flow.producer.get(equation.inputs[0])
            if equation.inputs[0] is numerator and beginning is not None and beginning.name == "exp":
                return {beginning, equation, division}
    return set()


def _find_live(flow: Flow, graph: Graph) -> None:
    flow.live.update(v for v in graph.outputs if flow.varies(v))
    for equation in reversed(graph.equations):
        if not flow.live.isdisjoint(equation.outputs):
            flow.live.update(flow.carriers(equation))


def of_itself(flow: Flow, equation: Equation) -> bool:
    """Whether an equation multiplies a value by itself, or divides by it: no scale."""
    carriers = flow.carriers(equation)
    if equation.name == "div":
        return equation.inputs[1] in carriers
    return equation.name == "mul" and len(carriers) > 1


def homogeneous(flow: Flow, equations: list[Equation]) -> bool:
    """Whether a chain is linear on each side of zero: its plain derivative is LRP-0."""
    return all(
        (one.name in SCALES | COPIES and not of_itself(flow, one)) or is_rectifier(one) for one in equations
    )


def is_rectifier(equation: Equation) -> bool:
    """Whether an equation is max(x, 0) or min(x, 0)."""
    return equation.name in RECTIFIERS and any(
        v.literal is not None and not v.shape and v.literal == 0 for v in equation.inputs
    )
