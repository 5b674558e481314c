"""The table of operations and their rules."""

import re
from html import unescape

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp
from jxai.lrp import Kind


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), use_bias=False, name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(x))
        x = x + nn.Conv(4, (3, 3), name="branch")(x)
        return nn.Dense(3, name="last")(nn.gelu(x).mean((1, 2)))


X = jax.ShapeDtypeStruct((2, 5, 5, 2), jnp.float32)
MAP = (2, 5, 5, 4)
VARIABLES = jax.tree.map(
    lambda leaf: np.ones(leaf.shape, leaf.dtype), jax.eval_shape(Net().init, jax.random.key(0), X)
)
# Path, kind, rule, shapes of inputs and output, parameters: kernel, and bias or batch norm's mean, factor and offset.
ROWS = [
    ("stem", Kind.CONVOLUTION, lrp.ZPlus(), [(2, 5, 5, 2)], MAP, 3 * 3 * 2 * 4 + 12),
    ("", Kind.ACTIVATION, lrp.Pass(), [MAP], MAP, 0),
    ("branch", Kind.CONVOLUTION, lrp.ZPlus(), [MAP], MAP, 3 * 3 * 4 * 4 + 4),
    ("", Kind.SUM, lrp.Norm(), [MAP, MAP], MAP, 0),
    ("", Kind.ACTIVATION, lrp.Pass(), [MAP], MAP, 0),
    ("", Kind.MEAN, lrp.Norm(), [MAP], (2, 4), 0),
    ("last", Kind.DENSE, lrp.Epsilon(), [(2, 4)], (2, 3), 4 * 3 + 3),
]


def table(x=X, composite=lrp.EpsilonPlus(norm=True)):
    return lrp.coverage(lambda x: Net().apply(VARIABLES, x), x, composite=composite)


def test_every_operation_has_a_row():
    rows = table().rows
    assert [(row.operation.path, row.operation.kind, row.rule) for row in rows] == [r[:3] for r in ROWS]
    assert [(list(row.operation.inputs), *row.operation.outputs) for row in rows] == [r[3:5] for r in ROWS]
    assert [row.operation.parameters for row in rows] == [r[5] for r in ROWS]
    assert [row.operation.first for row in rows if row.operation.parameters] == [True, False, False]


def test_it_prints_as_a_table():
    head, line, *rows = str(table()).splitlines()
    assert head.split() == ["path", "module", "operation", "rule", "shapes", "parameters"]
    assert set(line) == {"-", " "}
    assert len(rows) == len(ROWS)
    assert all(row[: len("branch")].strip() == expected[0] for row, expected in zip(rows, ROWS, strict=True))
    columns = [head.index(name) for name in ("module", "operation", "rule", "shapes", "parameters")]
    for row in rows:
        assert all(row[column - 1] == " " for column in columns if column < len(row))
    assert "branch  Conv    convolution" in str(table()) and "(2, 4) -> (2, 3)" in rows[-1]


def test_rules_show_what_differs_from_their_defaults():
    rules = [row.cells[3] for row in table(composite=lrp.EpsilonGammaBox(-1, 1, gamma=0.5)).rows]
    assert rules[0] == "Box(low=-1, high=1)"
    assert rules[2] == "Gamma(gamma=0.5)"
    assert rules[-1] == "Epsilon"


def test_arrays_give_the_same_as_shapes():
    assert str(table(np.zeros(X.shape, X.dtype))) == str(table())


def test_inside_of_loops_and_embeddings():
    table, weights = jnp.ones((7, 4)), jnp.ones((3, 4, 4))

    def f(tokens):
        return jax.lax.scan(lambda x, w: (nn.relu(x @ w), None), table[tokens].mean(1), weights)[0]

    rows = lrp.coverage(f, jax.ShapeDtypeStruct((2, 5), jnp.int32), composite=lrp.EpsilonPlus()).rows
    kinds = [row.operation.kind for row in rows]
    assert kinds[0] is Kind.EMBEDDING
    assert kinds[kinds.index(Kind.NESTED) + 1 :][:2] == [Kind.DENSE, Kind.ACTIVATION]
    (loop,) = [row for row in rows if row.operation.kind is Kind.NESTED]
    assert loop.rule is None and loop.cells[3] == "(inside)"


def test_modules_taken_as_a_whole_are_one_row():
    composite = lrp.Composite(((nn.BatchNorm, lrp.Pass()),), complete=False) | lrp.EpsilonPlus()
    (row,) = [row for row in table(composite=composite).rows if row.operation.kind is Kind.MODULE]
    assert row.cells[:2] == ("norm", "BatchNorm") and row.rule == lrp.Pass()


def test_gradients_meet_relu_alone():
    (row,) = table(composite=lrp.GuidedBackprop()).rows
    assert (row.operation.kind, row.rule) == (Kind.ACTIVATION, lrp.GuidedRelu())


@pytest.mark.parametrize(
    ("f", "dtype", "error", "message"),
    [
        (lambda x: x / x.sum(), jnp.float32, ValueError, r"none for other \(div\) in no module"),
        (lambda x: x, jnp.float16, TypeError, "got float16"),
        (lambda x: 2 * x, jnp.int32, TypeError, "in no embedding"),
    ],
)
def test_refuses_what_vjp_refuses(f, dtype, error, message):
    x = jax.ShapeDtypeStruct((2, 3), dtype)
    with pytest.raises(error, match=message):
        lrp.coverage(f, x, composite=lrp.EpsilonPlus())
    with pytest.raises(error, match=message):
        lrp.vjp(f, np.ones((2, 3), dtype), composite=lrp.EpsilonPlus())


def test_a_notebook_shows_the_same_cells():
    found = table()
    html = found._repr_html_()
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert [unescape(cell) for cell in cells] == [cell for row in found.rows for cell in row.cells]
    assert html.count("<tr>") == 1 + len(ROWS) and "-&gt;" in html


def test_names_of_a_program_are_no_html():
    def named(x):
        with jax.named_scope("<script>alert(1)</script>"):
            return jnp.tanh(x)

    html = lrp.coverage(named, jnp.ones((1, 3)), composite=lrp.EpsilonPlus())._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
