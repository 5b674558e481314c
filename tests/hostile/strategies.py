"""Arguments as they should be and as nobody should give them, and what a function may answer.

A `Case` is a function with an `Argument` for each of its parameters. An example draws all of them, spoils up to two,
and holds the answer to the contract of `docs/hostile.md`.
"""

import dataclasses
import functools
import importlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

# A few examples of every function in `make test`; the issue asks for fifty at least.
_MANY = 50
EFFORTS = pytest.mark.parametrize(
    "examples",
    [2, pytest.param(_MANY, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.long)],
    ids=["few", "many", "most"],
)


class Size(NamedTuple):
    """Images (n, h, w, c) of k classes. Few sizes, so that JAX compiles few programs."""

    n: int
    h: int
    w: int
    c: int
    k: int


SIZES = (Size(2, 4, 5, 3, 3), Size(1, 4, 3, 1, 2))


class Spoilt(NamedTuple):
    """A value that nobody should give, and whether there is no right answer to it but an error."""

    value: Any
    refused: bool = False


class Argument(NamedTuple):
    """How a parameter is drawn, both of the size of an example."""

    good: Callable[[Size], st.SearchStrategy[Any]]
    bad: Callable[[Size], st.SearchStrategy[Spoilt]]


# Of no number's or array's type.
_NOTHING = (None, "text", object(), {}, [[1.0], [2.0, 3.0]])


def _one(array: Any, value: float) -> Any:
    flat = np.array(array).ravel()
    flat[flat.size // 2] = value
    return jnp.asarray(flat.reshape(np.shape(array)))


def array(
    axes: str, *, fill: str = "normal", strange: bool = True, optional: bool = False, wrap: Any = jnp.asarray
) -> Argument:
    """Floats whose axes are letters of `Size` or digits.

    Args:
        axes: such as "nhwc".
        fill: "normal" for both signs, "positive", or "bytes" for [0, 255].
        strange: whether NaN and infinities have to be refused.
        optional: whether None is one of the right values.
        wrap: what makes the array, such as `np.asarray`.
    """

    def shape(size: Size) -> tuple[int, ...]:
        return tuple(int(a) if a.isdigit() else getattr(size, a) for a in axes)

    def values(size: Size, number: int) -> np.ndarray:
        rng = np.random.default_rng(number)
        drawn = rng.normal(size=shape(size)) * (1e3 if number % 5 == 3 else 1)
        drawn = {"normal": drawn, "positive": abs(drawn), "bytes": rng.integers(0, 256, shape(size))}[fill]
        return np.asarray(drawn * (number % 7 != 6), np.float32)  # one in seven is all zeros

    def good(size: Size) -> st.SearchStrategy[Any]:
        drawn = st.integers(0, 20).map(lambda number: wrap(values(size, number)))
        return drawn | st.none() if optional else drawn

    def bad(size: Size) -> st.SearchStrategy[Spoilt]:
        x = jnp.asarray(values(size, 1))
        not_finite = [Spoilt(_one(x, v), strange) for v in (np.nan, np.inf, -np.inf)] if x.size else []
        others = [
            *(x * v for v in (3e38, -1e30, 1e-44)),
            x[:0],
            x[..., :0],
            jnp.concatenate([x, x]),
            x[0],
            x[None],
            x[..., None],
            x.ravel(),
            jnp.zeros(()),
            *(x.astype(dtype) for dtype in (jnp.int32, jnp.bool_, jnp.complex64, jnp.float16, jnp.bfloat16)),
            np.asarray(x, np.float64) * 1e300,
            np.asarray(x, object),
            np.asarray(x).tolist(),
            *(nothing for nothing in _NOTHING if not (optional and nothing is None)),
        ]
        return st.sampled_from([*not_finite, *map(Spoilt, others)])

    return Argument(good, bad)


def integers(axes: str, *, below: str | int, refused: bool = True, wrap: Any = jnp.asarray) -> Argument:
    """Integers in [0, below), where `below` is a letter of `Size` or a number."""

    def limit(size: Size) -> int:
        return below if isinstance(below, int) else getattr(size, below)

    def values(size: Size, number: int) -> np.ndarray:
        shape = tuple(int(a) if a.isdigit() else getattr(size, a) for a in axes)
        return np.random.default_rng(number).integers(0, limit(size), shape).astype(np.int32)

    def good(size: Size) -> st.SearchStrategy[Any]:
        return st.integers(0, 9).map(lambda number: wrap(values(size, number)))

    def bad(size: Size) -> st.SearchStrategy[Spoilt]:
        x = values(size, 0)
        wrong = [x - limit(size), x + limit(size), x.astype(np.float32), x * np.nan]
        others = [x[:0], x[..., None], np.concatenate([x, x]), x.astype(bool), x.astype(object), *_NOTHING]
        return st.sampled_from([*(Spoilt(v, refused) for v in wrong), *map(Spoilt, others)])

    return Argument(good, bad)


def mask(axes: str, *, optional: bool = False) -> Argument:
    """Booleans, at least one of an image true; None too where it is optional."""

    def values(size: Size, number: int) -> np.ndarray:
        drawn = np.random.default_rng(number).random([getattr(size, a) for a in axes]) < 0.4
        drawn[:, 0] = True
        return drawn

    def bad(size: Size) -> st.SearchStrategy[Spoilt]:
        x = values(size, 0)
        wrong = [x & False, x.astype(np.float32), x.astype(np.int32), x[:0], x[0], x[:, :1], *_NOTHING]
        wrong = [v for v in wrong if not (optional and v is None)]
        return st.sampled_from([Spoilt(v, refused=True) for v in wrong])

    return Argument(lambda size: st.integers(0, 9).map(lambda n: jnp.asarray(values(size, n))), bad)


def number(*good: Any, wrong: Iterable[Any] = (), odd: Iterable[Any] = ()) -> Argument:
    """A number: right ones, ones that must be refused besides NaN, and ones that may be."""
    wrong = [Spoilt(v, refused=True) for v in (float("nan"), *wrong)]
    odd = [Spoilt(v) for v in (float("inf"), -float("inf"), True, 1 + 2j, *_NOTHING, np.zeros(7), *odd)]
    odd = [s for s in odd if not (None in good and s.value is None)]
    return Argument(lambda size: st.sampled_from(good), lambda size: st.sampled_from([*wrong, *odd]))


def count(*good: Any, least: int = 1, odd: Iterable[Any] = ()) -> Argument:
    """An integer: at least `least`."""
    wrong = [least - 1, least - 3, 2.5, float("nan"), float("inf"), "2", 1j, [2], object()]
    wrong += [] if None in good else [None]
    bad = [*(Spoilt(v, refused=True) for v in wrong), *map(Spoilt, (True, np.int64(2), *odd))]
    return Argument(lambda size: st.sampled_from(good or (1, 2, 3)), lambda size: st.sampled_from(bad))


def choice(*good: Any, wrong: Iterable[Any] = ()) -> Argument:
    """One of a few values; any other is refused."""
    bad = [Spoilt(v, refused=True) for v in ("nonsense", "", 3, 1.5, (), ["right"], *wrong)]
    bad += [] if None in good else [Spoilt(None, refused=True)]
    return Argument(lambda size: st.sampled_from(good), lambda size: st.sampled_from(bad))


def key() -> Argument:
    """A random key."""
    keys = jax.random.split(jax.random.key(5), 4)
    wrong = [None, 0, 1.5, "key", keys, jnp.zeros(2), jnp.zeros((), jnp.int32), object()]
    return Argument(
        lambda size: st.integers(0, 3).map(lambda i: keys[i]),
        lambda size: st.sampled_from([Spoilt(v, refused=True) for v in wrong]),
    )


def given_as(make: Callable[[Size], Any], *bad: Spoilt) -> Argument:
    """What depends on the size alone, such as a function; spoilt in these ways."""
    return Argument(
        lambda size: st.just(make(size)), lambda size: st.sampled_from(bad or [Spoilt(make(size))])
    )


def one_of(*good: Any, bad: Iterable[Spoilt] = ()) -> Argument:
    """One of a few values; spoilt in these ways, or never."""
    bad = [*bad]
    return Argument(
        lambda size: st.sampled_from(good), lambda size: st.sampled_from(bad or [*map(Spoilt, good)])
    )


@functools.cache
def network(size):
    """A dense layer of the flattened images, squashed, so that scores stay finite whatever comes."""
    weights = np.random.default_rng(0).normal(size=(size.h * size.w * size.c, size.k)).astype(np.float32)

    def f(x):
        return jnp.tanh(x.reshape(len(x), -1) @ jnp.asarray(weights, x.dtype) / 10) + 2

    return f


F = given_as(
    network,
    Spoilt(lambda x: jnp.zeros(()), refused=True),
    Spoilt(lambda x: {"scores": jnp.zeros((len(x), 4))}),
    Spoilt(lambda x: None, refused=True),
    Spoilt(lambda x: jnp.full((len(x), 4), jnp.nan) * x.sum()),
    Spoilt(lambda x: jnp.zeros((len(x), 4))),
    Spoilt(lambda x: jnp.zeros((len(x), 0)), refused=True),
    Spoilt(lambda x: jnp.stack([x.reshape(len(x), -1).sum(1).astype(jnp.float32) * 1e38] * 4, 1)),
)
BATCH = {"f": F, "x": array("nhwc"), "target": integers("n", below="k")}
CHUNKS = {"chunk_size": count(None, 4)}


@dataclasses.dataclass(frozen=True)
class Case:
    """A function with its arguments.

    Attributes:
        call: the function.
        arguments: by the names of its parameters.
        holds: what is asked of an answer to well-formed arguments besides being finite, of (answer, arguments).
        undefined: where the documentation says that an answer may hold NaN or infinities, and of what.
        errors: what else it may raise, as documented.
    """

    call: Callable[..., Any]
    arguments: Mapping[str, Argument] = dataclasses.field(default_factory=dict)
    holds: Callable[[Any, dict[str, Any]], Any] | None = None
    undefined: str = ""
    errors: tuple[type[Exception], ...] = ()

    def check(self, data: st.DataObject, *, few: bool = False) -> None:
        """Draws one example and looks at the answer; of few ones all are spoilt, and of one size.

        What is well-formed has to be compiled, and has tests of its own.
        """
        size = data.draw(st.sampled_from(SIZES[:1] if few else SIZES), "size")
        names = sorted(self.arguments)
        sets = st.sets(st.sampled_from(names), min_size=int(few), max_size=2) if names else st.just(set())
        spoilt = data.draw(sets, "spoilt")
        drawn = {
            name: data.draw(argument.bad(size) if name in spoilt else argument.good(size), name)
            for name, argument in self.arguments.items()
        }
        refused = any(getattr(drawn[name], "refused", True) for name in spoilt)
        given = {name: v.value if isinstance(v, Spoilt) else v for name, v in drawn.items()}
        try:
            answer = self.call(**given)
        except (ValueError, TypeError, *self.errors) as error:
            message = str(error)
            assert message.startswith("expected ") and ", got " in message, f"not for users: {message}"
            assert spoilt, f"well-formed arguments were refused: {message}"
            return
        assert not refused, f"answered as if nothing were wrong: {answer}"
        assert self.undefined or is_finite(answer), f"an answer that is not finite: {answer}"
        if self.holds is not None and not spoilt:
            held = self.holds(answer, given)
            assert held is None or bool(held), f"a wrong answer: {answer}"


def is_finite(answer: Any) -> bool:
    """Whether no array or number of a tree is NaN or infinite."""
    for leaf in jax.tree.leaves(answer):
        if isinstance(leaf, float) or (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)):
            wide = jnp.asarray(leaf) if isinstance(leaf, jax.Array) else np.asarray(leaf)
            if not np.isfinite(
                np.asarray(wide, np.complex128 if np.iscomplexobj(wide) else np.float64)
            ).all():
                return False
    return True


def settings_of(examples: int) -> settings:
    """The same examples in every run, and as much time as they take: one may compile something."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )


def in_each_run(examples: int, **drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], None]:
    """A decorator that calls a function with so many examples of its arguments, at once."""
    return lambda function: settings_of(examples)(given(**drawn)(function))()


def search(name: str, case: Case, examples: int) -> None:
    """Looks for an example that breaks the contract; the same ones in every run."""

    @seed(zlib.crc32(name.encode()))
    @settings_of(examples)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        case.check(data, few=examples < _MANY)

    run()


def public(module: ModuleType) -> set[str]:
    """The names in `__all__`; without one, those of the functions and classes that a module defines."""
    own = {
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    }
    return set(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def unheard_of(name: str, cases: Iterable[str], exempt: Mapping[str, str]) -> set[str]:
    """Public names of a package or module without a case or a reason to have none, and names that are not public."""
    module = importlib.import_module(f"jxai.{name}")
    names = {case.split(":")[0] for case in cases}
    assert not names & set(exempt), "exempt and examined"
    assert all(exempt.values()), "a reason each"
    constants = {name for name in public(module) if not callable(getattr(module, name))}
    return (public(module) - constants) ^ (names | (set(exempt) - constants))
