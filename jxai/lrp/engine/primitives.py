"""What is known of JAX's primitives, one row each: the only place where the engine learns what an operation does.

Facts, kinds and plans follow from the rows; a primitive without a row is refused unless a composite has a rule for
it. `declare` adds a row for a primitive, a Pallas kernel or a jitted function of somebody else's.
"""

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive

from jxai.checks import shown
from jxai.errors import InputError, InputTypeError
from jxai.ops import convolution, depthwise


class Linear(enum.Enum):
    """In which of its operands with values a primitive is linear."""

    NO = "in none"
    JOINTLY = "in all at once, as a sum is"
    EACH = "in each for the others given, as a product is"
    FIRST = "in the first for the others given, as a quotient is"


class Sign(enum.Enum):
    """What is known of the sign of a primitive's results."""

    UNKNOWN = "nothing"
    KEPT = "not negative where no operand is"
    LARGEST = "not negative where one operand is not"
    BOUNDED = "not negative where the first operand, a lower bound, is not"
    POSITIVE = "never negative"


class Loop(enum.Enum):
    """How a primitive runs the functions that it holds."""

    SCAN = "one after the other, carrying values"
    BRANCH = "one of several"
    AGAIN = "as it stands, and once more on the way back"


@dataclasses.dataclass(frozen=True)
class Row:
    """What a primitive does.

    Attributes:
        entrywise: a result's entry is a function of the operands' entries at the same place.
        moves: it moves, copies or chooses entries: its plain derivative hands relevance to where they came from.
        sums: it adds up entries along axes.
        contracts: it multiplies two operands entry by entry and adds up: one of them may be a layer's kernel.
        linear: in which operands.
        degree: f(t·x) = t^degree f(x) for t > 0, for functions of one operand; None where that does not hold.
        sign: of the results.
        values: how many of the first operands hold values; those behind say where. None: all.
        where: an operand among others that says where.
        selects: the first operand says which of the others an entry is taken from.
        opaque: JAX has no derivative of it, so that relevance cannot so much as be stopped behind it.
        inside: the parameter that holds the function that it calls; it is looked into.
        loop: it runs functions that are planned on their own.
        means: a function of the operands and parameters that does the same by primitives with rows.
        kernel: for `contracts`, the operand that may be a kernel; None for either.
        dense: for `contracts`, whether it is a dense layer, rather than a convolution.
        drawn: its results are given, like weights, and not computed from constants.
        holds: nothing passes, as through `stop_gradient`.
        compares: its results are answers, not numbers.
    """

    entrywise: bool = False
    moves: bool = False
    sums: bool = False
    contracts: bool = False
    linear: Linear = Linear.NO
    degree: float | None = None
    sign: Sign = Sign.UNKNOWN
    values: int | None = None
    where: int | None = None
    selects: bool = False
    opaque: bool = False
    inside: str | None = None
    loop: Loop | None = None
    means: Callable | None = None
    kernel: int | None = None
    dense: bool = False
    drawn: bool = False
    holds: bool = False
    compares: bool = False

    @property
    def shifts(self) -> bool:
        """Whether it adds operands entry by entry."""
        return self.affine and self.linear is Linear.JOINTLY and self.degree is None

    @property
    def scales(self) -> bool:
        """Whether it multiplies or divides entry by entry."""
        return self.affine and self.linear is not Linear.JOINTLY

    @property
    def copies(self) -> bool:
        """Whether its result is its operand, or minus it, entry by entry."""
        return self.affine and self.linear is Linear.JOINTLY and self.degree is not None

    @property
    def affine(self) -> bool:
        """Whether it scales and shifts entries, no more."""
        return self.entrywise and self.linear is not Linear.NO and not self.selects


UNKNOWN = Row()
_ROWS: dict[str, Row] = {}
# Jitted functions and Pallas kernels, told apart by their name.
_NAMED: dict[tuple[str, str], Row] = {}


def _fill(names: str, **fields: Any) -> None:
    _ROWS.update(dict.fromkeys(names.split(), Row(**fields)))


# Entry by entry, linear.
_fill("add add_any", entrywise=True, linear=Linear.JOINTLY, sign=Sign.KEPT)
_fill("sub", entrywise=True, linear=Linear.JOINTLY)
_fill("mul", entrywise=True, linear=Linear.EACH, sign=Sign.KEPT)
_fill("div", entrywise=True, linear=Linear.FIRST, sign=Sign.KEPT)
_fill("neg", entrywise=True, linear=Linear.JOINTLY, degree=1)
_fill(
    "convert_element_type copy copy_p name reduce_precision pvary pcast jxai_fixed",
    entrywise=True,
    moves=True,
    linear=Linear.JOINTLY,
    degree=1,
    sign=Sign.KEPT,
)
_fill(
    "acos acosh asin asinh atan atan2 atanh clamp cos cosh digamma erf erf_inv expm1 lgamma log "
    "log1p nextafter rem sin sinh tan tanh round floor ceil",
    entrywise=True,
)
_fill("round floor ceil", entrywise=True, sign=Sign.KEPT)
_fill("clamp", entrywise=True, sign=Sign.BOUNDED)
_fill("exp exp2 logistic erfc", entrywise=True, sign=Sign.POSITIVE)
_fill("abs", entrywise=True, degree=1, sign=Sign.POSITIVE)
_fill("sign", entrywise=True, degree=0)
_fill("square", entrywise=True, degree=2, sign=Sign.POSITIVE)
_fill("sqrt", entrywise=True, degree=1 / 2, sign=Sign.POSITIVE)
_fill("rsqrt", entrywise=True, degree=-1 / 2, sign=Sign.POSITIVE)
_fill("cbrt", entrywise=True, degree=1 / 3)
_fill("pow integer_pow", entrywise=True, sign=Sign.KEPT, values=1)
_fill("max", entrywise=True, moves=True, sign=Sign.LARGEST)
_fill("min", entrywise=True, moves=True, sign=Sign.KEPT)
_fill("eq ne lt le gt ge and or xor not is_finite eq_to le_to lt_to", entrywise=True, compares=True)
_fill("stop_gradient", entrywise=True, linear=Linear.JOINTLY, degree=1, sign=Sign.KEPT, holds=True)
_fill("select_n", entrywise=True, moves=True, linear=Linear.JOINTLY, sign=Sign.KEPT, selects=True)
# Moving, copying, choosing.
_fill(
    "broadcast_in_dim concatenate device_put expand_dims optimization_barrier pad reshape rev "
    "sharding_constraint mesh_cast slice split squeeze stack tile transpose unstack reshard "
    "broadcast all_gather all_gather_invariant ppermute all_to_all",
    moves=True,
    linear=Linear.JOINTLY,
    sign=Sign.KEPT,
)
_fill("dynamic_slice gather", moves=True, linear=Linear.JOINTLY, sign=Sign.KEPT, values=1)
_fill("dynamic_update_slice", moves=True, linear=Linear.JOINTLY, sign=Sign.KEPT, values=2)
_fill(
    "cummax cummin reduce_max reduce_min reduce_window_max reduce_window_min sort top_k approx_top_k "
    "pmax pmin",
    moves=True,
    degree=1,
    sign=Sign.KEPT,
)
_fill("argsort", moves=True)
# The operands are what is written to, where, and what is written.
_fill("scatter scatter-add scatter_add", moves=True, linear=Linear.JOINTLY, where=1)
_fill("scatter-max scatter_max scatter-min scatter_min", moves=True)
_fill("scatter-mul scatter_mul", linear=Linear.FIRST)
# Complex numbers and transforms, linear over the reals.
_fill("real imag complex conj fft", moves=True, linear=Linear.JOINTLY)
# Adding up.
_fill(
    "reduce_sum reduce_window_sum cumsum psum psum_invariant psum2 reduce_scatter",
    sums=True,
    linear=Linear.JOINTLY,
    sign=Sign.KEPT,
)
# Products.
_fill("dot_general", contracts=True, linear=Linear.EACH, sign=Sign.KEPT, dense=True)
_fill("conv_general_dilated", contracts=True, linear=Linear.EACH, sign=Sign.KEPT, kernel=1)
_fill("ragged_dot ragged_dot_general", contracts=True, linear=Linear.EACH, kernel=1, values=2, dense=True)
_fill("bcoo_dot_general", contracts=True, linear=Linear.EACH, kernel=0, dense=True)
_fill("triangular_solve", linear=Linear.JOINTLY)
# What has no derivative.
_fill("while pure_callback io_callback", opaque=True)
# Functions inside.
for _name, _inside in {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_lin": "jaxpr",
}.items():
    _fill(_name, inside=_inside)
_fill("scan", loop=Loop.SCAN)
_fill("cond", loop=Loop.BRANCH)
_fill("checkpoint remat remat2", loop=Loop.AGAIN)
_fill(
    "random_seed random_wrap random_unwrap random_bits random_fold_in random_split random_gamma "
    "threefry2x32 rng_bit_generator rng_uniform",
    drawn=True,
)


def row_of(primitive: Primitive, params: dict[str, Any]) -> Row:
    """The row of a primitive with its parameters; `UNKNOWN` where there is none."""
    if _NAMED and (found := _NAMED.get((primitive.name, _name_of(params)))) is not None:
        return found
    return _ROWS.get(primitive.name, UNKNOWN)


def row(equation: Any) -> Row:
    """The row of an equation's primitive."""
    return row_of(equation.primitive, equation.params)


def named_row(name: str) -> Row:
    """The row of a primitive's name."""
    return _ROWS.get(name, UNKNOWN)


def degree_of(equation: Any) -> float | None:
    """The degree of an operation of one operand with values, f(t·x) = t^degree f(x) for t > 0, or None."""
    if "y" in equation.params and equation.name == "integer_pow":
        return float(equation.params["y"])
    if equation.name == "pow":
        exponent = equation.inputs[1].literal
        return None if exponent is None else float(exponent)
    row = row_of(equation.primitive, equation.params)
    return 1.0 if row.degree is None and row.linear is Linear.JOINTLY else row.degree


def rectifies(equation: Any) -> bool:
    """Whether an operation is max(x, 0) or min(x, 0)."""
    return equation.name in ("max", "min") and any(
        v.literal is not None and not v.shape and v.literal == 0 for v in equation.inputs
    )


def is_relu(equation: Any) -> bool:
    """Whether an operation is max(x, 0)."""
    return equation.name == "max" and rectifies(equation)


def never_negative(equation: Any, known: Callable[[Any], bool]) -> bool:
    """Whether an operation's results hold no negative number, given which of its operands hold none."""
    row, inputs = row_of(equation.primitive, equation.params), equation.inputs
    if row.sign is Sign.POSITIVE or (equation.name == "integer_pow" and equation.params["y"] % 2 == 0):
        return True
    if row.sign is Sign.LARGEST:
        return any(known(v) for v in inputs)
    if row.sign is Sign.BOUNDED:
        return known(inputs[0])
    if equation.name == "mul" and inputs[0] is inputs[1]:
        return True
    if row.sign is Sign.KEPT or row.holds:
        return all(known(v) for v in inputs[row.selects : row.values])
    return False


def _name_of(params: dict[str, Any]) -> str:
    name = params.get("name", params.get("name_and_src_info", params.get("kernel_name", "")))
    return str(getattr(name, "name", name))


def declare(
    primitive: Primitive | str,
    *,
    like: Primitive | None = None,
    means: Callable | None = None,
    name: str | None = None,
    **fields: Any,
) -> None:
    """Give a primitive, or a Pallas kernel, a row of its own, so that functions with it are explained.

    Exactly one of `like`, `means` and fields says what it does. JAX has to be able to differentiate what is `like`
    another primitive or given by fields; what is given by `means` is explained, and differentiated, by that function.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax.extend.core import Primitive
        >>> from jxai import lrp
        >>> double_p = Primitive("double")
        >>> _ = double_p.def_abstract_eval(lambda x: x)
        >>> lrp.declare(double_p, means=lambda x: 2 * x)
        >>> y, pullback = lrp.vjp(lambda x: double_p.bind(x), jnp.ones((1, 3)), composite=lrp.EpsilonPlus())
        >>> pullback(y)[0].tolist()
        [[2.0, 2.0, 2.0]]

    Args:
        primitive: the primitive, or its name, such as "pallas_call".
        like: a primitive that has a row already.
        means: function of (operands, and the primitive's parameters by keyword if it takes any) to what it gives,
            in operations that have rows: for an attention kernel, attention as one would write it.
        name: the name of the kernel or of the jitted function, where many share a primitive.
        **fields: of the row: entrywise, moves, sums, contracts, linear ("jointly", "each", "first"), degree, sign
            ("kept", "positive"), values, opaque, kernel.

    Raises:
        TypeError: no primitive, or no function.
        ValueError: not exactly one way of saying what it does, it is declared already, `like` has no row, or an
            unknown field.
    """
    if not isinstance(primitive, Primitive | str):
        raise InputTypeError(f"expected JAX's primitive or its name, got {shown(primitive)}: see lrp.declare")
    key = primitive if isinstance(primitive, str) else primitive.name
    if not key or not isinstance(name, str | None) or name == "":
        raise InputError(f"expected names, got {shown(key)} and {shown(name)}: see lrp.declare")
    if (said := (means is not None) + (like is not None) + bool(fields)) != 1:
        raise InputError(f"expected one of like=, means= and fields for '{key}', got {said}: give one")
    if means is not None and not callable(means):
        raise InputTypeError(f"expected a function for means=, got {shown(means)}: see lrp.declare")
    if like is not None and not (isinstance(like, Primitive) and like.name in _ROWS):
        raise InputError(
            f"expected like= to be a primitive with a row, got {shown(like)}: use means= or fields"
        )
    row = Row(means=means) if like is None else _ROWS[like.name]
    row = _from_fields(fields) if fields else row
    if (key in _ROWS) if name is None else ((key, name) in _NAMED):
        what = key if name is None else f"{key} named '{name}'"
        raise InputError(f"expected a primitive without a row, got '{what}', which has one: declare it once")
    if name is None:
        _ROWS[key] = row
    else:
        _NAMED[key, name] = row


_WORDS: dict[str, Any] = {
    "linear": {"jointly": Linear.JOINTLY, "each": Linear.EACH, "first": Linear.FIRST},
    "sign": {"kept": Sign.KEPT, "positive": Sign.POSITIVE},
}
_NUMBERS: dict[str, Any] = {
    "values": (int, 1),
    "kernel": (int, -math.inf),
    "degree": (int | float, -math.inf),
}


def _from_fields(fields: dict[str, Any]) -> Row:
    known = {*_NUMBERS, *_WORDS, "entrywise", "moves", "sums", "contracts", "opaque"}
    if unknown := set(fields) - known:
        raise InputError(f"expected fields of {sorted(known)}, got {sorted(unknown)}: see lrp.declare")
    for field, value in fields.items():
        of, least = _NUMBERS.get(field, (bool, 0))
        if field not in _WORDS and not (
            isinstance(value, of) and isinstance(value, bool) == (of is bool) and least <= value < math.inf
        ):
            raise InputError(f"expected {field} to be a {of}, got {shown(value)}: see lrp.declare")
    for field, allowed in _WORDS.items():
        if field in fields and not (isinstance(fields[field], str) and fields[field] in allowed):
            raise InputError(
                f"expected {field} of {sorted(allowed)}, got {shown(fields[field])}: see lrp.declare"
            )
    return Row(**{k: _WORDS[k][v] if k in _WORDS else v for k, v in fields.items()})


declare(convolution.convolution_p, means=jax.lax.conv_general_dilated)
declare(depthwise.depthwise_p, means=depthwise.grouped)


def linear_operation(
    function: Callable[[Any, jax.Array], jax.Array],
) -> Callable[[Any, jax.Array], jax.Array]:
    """Have a function taken as one linear layer, however it computes.

    For example a convolution by Fourier or Winograd transforms, whose inner products mean nothing to a rule.

    Args:
        function: of (inputs, kernel) to one array, linear in the inputs (an array or a tree of arrays) for a given
            kernel, and in the kernel (one array) for given inputs.

    Returns:
        The function, jitted, which rules meet as `Kind.CONVOLUTION`.
    """

    def named(inputs, kernel):
        return function(inputs, kernel)

    named.__doc__ = function.__doc__
    named.__name__ = named.__qualname__ = f"jxai_linear_operation_{getattr(function, '__name__', 'function')}"
    _NAMED["jit", named.__name__] = _NAMED["pjit", named.__name__] = Row(
        contracts=True, linear=Linear.EACH, kernel=-1
    )
    return jax.jit(named)
