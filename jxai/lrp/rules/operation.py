"""What a composite and a rule see of the model: one operation, its place, its values."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax


class Kind(enum.Enum):
    """What an operation is to a rule, whichever library called it."""

    CONVOLUTION = "convolution"
    """A convolution by a given kernel that does not depend on the input, with its bias; also patches @ kernel."""
    DENSE = "dense"
    """A contraction with a kernel that does not depend on the input and is given, with its bias."""
    SUM = "sum"
    """The sum or difference of two or more activations, as at the end of a residual block."""
    MEAN = "mean"
    """A sum, a mean or average pooling over axes."""
    PRODUCT = "product"
    """The product of two activations, such as a gate."""
    CONTRACTION = "contraction"
    """A contraction of two activations, such as attention's."""
    SOFTMAX = "softmax"
    """A softmax."""
    ACTIVATION = "activation"
    """A function of each entry alone, such as GELU, written as any number of operations."""
    AFFINE = "affine"
    """Scale and shift of each entry that could not be merged into a linear layer, such as batch norm."""
    SHIFT = "shift"
    """The sum of an activation and a constant."""
    NORMALIZATION = "normalization"
    """Division by the input's own statistic, such as its deviation, with the scale and shift that follow."""
    CENTERING = "centering"
    """Subtraction of the input's own mean."""
    FIXED = "fixed"
    """A contraction with a matrix that is no weight: resizing, patches, masks, a basis, an adjacency."""
    EMBEDDING = "embedding"
    """Looking up rows of a table by integers."""
    MOVE = "move"
    """Moving, copying or choosing entries: reshaping, slicing, padding, concatenation, maxima, ..."""
    MODULE = "module"
    """A whole module, or name scope."""
    NESTED = "nested"
    """A loop or a branch, whose inside has its own operations."""
    OTHER = "other"
    """Anything else: refused unless the composite has a rule for it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operation:
    """One operation of the model, as patterns and reports see it.

    Attributes:
        kind: what it is to a rule.
        primitives: the names of JAX's primitives that it is made of, in order.
        modules: the modules around it, of Flax (bound) or another library, outermost first; for a module, itself
            last. A name scope stands in it as None.
        path: path of the innermost module or name scope, such as "encoder/block3"; "" outside.
        call: where that is called several times: which of its calls, from 0.
        first: no linear layer lies between it and the input.
        inputs: shapes of the inputs that carry relevance.
        outputs: shapes of the results.
        parameters: number of entries of kernel and bias.
        entrywise: whether it is a scale of each entry.
        weighs: whether its results multiply other activations, as attention's weights do.
    """

    kind: Kind
    primitives: tuple[str, ...] = ()
    modules: tuple[Any, ...] = ()
    path: str = ""
    call: int | None = None
    first: bool = False
    inputs: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()
    parameters: int = 0
    entrywise: bool = False
    weighs: bool = False

    @property
    def module(self) -> Any:
        """The innermost module, or None outside of any."""
        modules = self.modules[-1:] if self.kind is Kind.MODULE else self.modules
        return next((one for one in reversed(modules) if one is not None), None)

    @property
    def place(self) -> str:
        """The path, with the number of the call where there are several: "conv#1"."""
        return self.path + ("" if self.call is None else f"#{self.call}")

    def __str__(self) -> str:
        what = "no module" if self.module is None else type(self.module).__name__
        where = f"{what} at '{self.place}'" if self.modules else what
        return f"{self.kind.value} ({', '.join(self.primitives)}) in {where}"


def first(operation: Operation) -> bool:
    """A pattern: linear layers with no other linear layer between them and the input.

    Args:
        operation: the operation.

    Returns:
        Whether it is one.
    """
    return operation.first and operation.kind in (Kind.CONVOLUTION, Kind.DENSE)


def attention_weights(operation: Operation) -> bool:
    """A pattern: softmaxes whose results weigh other activations; not those of a classifier's scores.

    Args:
        operation: the operation.

    Returns:
        Whether it is one.
    """
    return operation.kind is Kind.SOFTMAX and operation.weighs


@dataclasses.dataclass(frozen=True)
class Linear:
    """z = map(x, kernel) + bias, with `map` linear in each argument. Batch norm around it is merged in.

    Attributes:
        map: function of (x, kernel) to z without bias; x is a list of arrays.
        kernel: the weights.
        bias: of a shape that broadcasts to z's, or None.
        nonnegative: x is known to hold no negative value, as behind a ReLU.
        rectified: no relevance arrives where z is negative, as before a ReLU.
        channels: a convolution's axes of input channels, in x and in the kernel, and of output channels, in z and in
            the kernel: several maps are one of concatenated channels. None where that does not hold.
        batch: the axis of x along which the map does the same, or None.
    """

    map: Callable[[list[jax.Array], jax.Array], jax.Array]
    kernel: jax.Array
    bias: jax.Array | None = None
    nonnegative: bool = False
    rectified: bool = False
    channels: tuple[int, int, int, int] | None = None
    batch: int | None = None


@dataclasses.dataclass(frozen=True)
class Application:
    """An operation at work: what a rule computes with.

    Attributes:
        operation: which one it is.
        inputs: the arrays that carry relevance.
        constants: all other arrays that the operation needs.
        function: of (inputs, constants) to the list of results.
        linear: the linear map, for `Kind.CONVOLUTION` and `Kind.DENSE`.
        meters: None, or two scalars whose cotangents the rule sets to the relevance that bias and stabilizer
            absorb.
        weights: whether the kernel's and the bias's ratios are wanted too.
    """

    operation: Operation
    inputs: list[jax.Array]
    constants: list[Any]
    function: Callable[[list[jax.Array], list[Any]], list[jax.Array]]
    linear: Linear | None = None
    meters: tuple[jax.Array, jax.Array] | None = None
    weights: bool = False
