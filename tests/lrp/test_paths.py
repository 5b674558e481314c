"""Where operations stand, whichever library calls them: one network in each, and what each has of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jxai import lrp
from jxai.models import split
from zoo import LIBRARIES, LRP_0, START, V, W, X, Y, Z, close, equinox, haiku, keras, of_hidden, of_input


@pytest.fixture(scope="module", params=LIBRARIES)
def case(request):
    return LIBRARIES[request.param]()


def test_watch(case):
    y, pullback = lrp.vjp(case, X, composite=LRP_0, watch=[case.hidden, case.head])
    (relevance,), seen = pullback(START)
    close(y, Y)
    close(relevance, of_input(of_hidden(START)))
    close(seen[case.hidden], of_hidden(START))
    close(seen[case.head], START)


def test_masks(case):
    mask = np.array([1, 0, 1, 1, 0], np.float32)
    _, pullback = lrp.vjp(case, X, composite=LRP_0, masks={case.hidden: mask})
    close(pullback(START)[0], of_input(of_hidden(START) * mask))


def test_start(case):
    hidden, pullback = lrp.vjp(case, X, composite=LRP_0, start=case.hidden)
    close(hidden, Z)
    close(pullback(Z)[0], of_input(Z))


def rows(f, composite=LRP_0):
    return lrp.coverage(f, X, composite=composite).rows


def layers(f, composite=LRP_0):
    """The rows of dense layers."""
    return [row for row in rows(f, composite) if row.operation.kind is lrp.Kind.DENSE]


def test_coverage_and_patterns(case, request):
    if request.node.callspec.params["case"] == "mark":
        return  # a mark names one value, and no operation
    dense = [row.cells for row in layers(case)]
    name = "" if case.kind is None else case.kind.__name__
    assert [cells[:2] for cells in dense] == [(case.hidden, name), (case.head, name)]
    by_path = lrp.Composite(((f"*{case.hidden}", lrp.Flat()),)) | LRP_0
    found = {row.operation.path: row.rule for row in layers(case, by_path)}
    assert found[case.hidden] == lrp.Flat() and found[case.head] == lrp.Epsilon(0.0)
    if case.kind is not None:
        by_class = lrp.Composite((((case.kind, lrp.first), lrp.WSquare()),)) | LRP_0
        found = {row.operation.path: row.rule for row in layers(case, by_class)}
        assert found[case.hidden] == lrp.WSquare() and found[case.head] == lrp.Epsilon(0.0)


def test_a_place_as_a_whole(case, request):
    if request.node.callspec.params["case"] == "mark":
        return
    composite = lrp.Composite(((case.head, lrp.Constant()),)) | LRP_0
    with pytest.warns(UserWarning, match="expected relevance to reach the inputs, got none"):
        _, pullback = lrp.vjp(case, X, composite=composite)
    np.testing.assert_array_equal(pullback(START)[0], 0)


def test_a_path_of_nothing_lists_what_there_is(case):
    with pytest.raises(ValueError, match=rf"'nowhere' with no call: take one of .*{case.head}"):
        lrp.vjp(case, X, composite=LRP_0, start="nowhere")
    if case.hidden != "net/hidden":
        with pytest.raises(ValueError, match="scope or mark that is called once"):
            lrp.vjp(case, X, composite=LRP_0, start=f"{case.hidden}#0")  # it is called once
    with pytest.warns(UserWarning, match="got none for .'nowhere'"):
        rows(case, lrp.Composite((("nowhere", lrp.Flat()),)) | LRP_0)


def test_split(case, request):
    if request.node.callspec.params["case"] == "named_scope":
        return  # marks and modules alone
    features, head = split(case.apply, case.hidden, variables=case.variables, image_shape=(4,))
    hidden = jax.jit(features)(case.variables, X)
    close(hidden, Z)
    close(head(case.variables, hidden), Y)
    _, pull = jax.vjp(lambda z: head(case.variables, z), jnp.asarray(Z))
    close(pull(START)[0], (Z > 0) * (START @ W.T))
    _, pull = jax.vjp(lambda x: features(case.variables, x), jnp.asarray(X))
    close(pull(jnp.asarray(Z))[0], Z @ V.T)


def test_under_transformations(case):
    explain = jax.jit(lambda x: lrp.vjp(case, x, composite=LRP_0, watch=[case.hidden])[1](START))
    close(explain(X)[1][case.hidden], of_hidden(START))
    one = lambda x, r: lrp.vjp(case, x[None], composite=LRP_0, watch=[case.hidden])[1](r[None])  # noqa: E731
    close(jax.vmap(one)(X, START)[1][case.hidden][:, 0], of_hidden(START))


# Modules called several times.


def twice_linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Dense(4, name="layer")
            return layer(nn.relu(layer(x)))

    net = Net()
    variables = net.init(jax.random.key(0), X)
    return lambda x: net.apply(variables, x)


def twice_nnx():
    layer = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    return nnx.Sequential(nnx.Dict(layer=layer).layer, nnx.relu, layer)


def twice_equinox():
    class Net(equinox.Module):
        layer: equinox.nn.Linear

        @equinox.filter_jit
        def __call__(self, x):
            return self.layer(jax.nn.relu(self.layer(x)))

    return jax.vmap(Net(equinox.nn.Linear(4, 4, key=jax.random.key(0))))


def twice_haiku():
    def net(x):
        layer = haiku.Linear(4, name="layer")
        return layer(jax.nn.relu(layer(x)))

    net = haiku.without_apply_rng(haiku.transform(net))
    return lambda x: net.apply(net.init(jax.random.key(0), x), x)


def twice_keras():
    inputs, layer = keras.Input((4,)), keras.layers.Dense(4, name="layer")
    return keras.Model(inputs, layer(keras.ops.relu(layer(inputs))))


def twice_scope():
    def f(x):
        for _ in range(2):
            with jax.named_scope("layer"):
                x = x @ jnp.asarray(V[:, 1:])
            x = jax.nn.relu(x)
        return x

    return f


@pytest.mark.parametrize(
    "make", [twice_linen, twice_nnx, twice_equinox, twice_haiku, twice_keras, twice_scope]
)
def test_one_call_of_several(make):
    f = make()
    path = "layers/0" if make is twice_nnx else "layer"
    places = [row.operation.place for row in layers(f)]
    assert places == [f"{path}#0", f"{path}#1"]
    with pytest.raises(ValueError, match=rf"'{path}' with 2 calls: take one of {path}#0, {path}#1"):
        lrp.vjp(f, X, composite=LRP_0, watch=[path])
    hidden = np.asarray(lrp.vjp(f, X, composite=LRP_0, start=f"{path}#0")[0])
    y, pullback = lrp.vjp(f, X, composite=LRP_0, watch=[f"{path}#0", f"{path}#1"])
    _, seen = pullback(y)
    assert seen[f"{path}#0"].shape == hidden.shape and not np.allclose(seen[f"{path}#0"], seen[f"{path}#1"])
    assert not np.any(np.asarray(seen[f"{path}#0"])[hidden < 0])  # before the ReLU
    for pattern, expected in ((path, (True, True)), (f"{path}#1", (False, True))):
        composite = lrp.Composite(((pattern, lrp.Flat()),)) | LRP_0
        found = [row.rule for row in layers(f, composite)]
        assert tuple(rule == lrp.Flat() for rule in found) == expected


# What single libraries have of their own.


class Block(equinox.Module):
    linear: equinox.nn.Linear

    @equinox.filter_jit
    def __call__(self, x):
        return jax.nn.relu(self.linear(x))


class Blocks(equinox.Module):
    blocks: list[Block]
    by_name: dict[str, equinox.nn.Linear]

    def __init__(self, key):
        self.blocks = [Block(equinox.nn.Linear(4, 4, key=key)) for _ in range(2)]
        self.by_name = {"last": equinox.nn.Linear(4, 4, key=key)}

    @equinox.filter_jit
    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.features(x)

    def features(self, x):
        return self.by_name["last"](x)


BLOCKS = Blocks(jax.random.key(0))


@pytest.mark.parametrize(
    "f",
    [
        jax.vmap(BLOCKS),
        equinox.filter_vmap(BLOCKS),
        lambda x: equinox.filter_jit(lambda net, x: jax.vmap(net)(x))(BLOCKS, x),
        lambda x: jax.lax.map(BLOCKS, x),
    ],
    ids=["vmap", "filter_vmap", "filter_jit", "map"],
)
def test_equinox_modules_that_jax_rebuilds(f):
    # Both blocks share one traced jaxpr: the second's layer is named after the second all the same.
    dense = [row.operation.path for row in layers(f)]
    assert dense == ["blocks/0/linear", "blocks/1/linear", "by_name/last"]


def test_another_method_than_call():
    (path,) = (row.operation.path for row in rows(jax.vmap(BLOCKS.features)))
    assert path == "by_name/last"


def test_equinox_layers_that_are_scanned():
    make = equinox.filter_vmap(lambda key: Block(equinox.nn.Linear(4, 4, key=key)))

    class Net(equinox.Module):
        layers: Block
        last: equinox.nn.Linear

        def __call__(self, x):
            arrays, rest = equinox.partition(self.layers, equinox.is_array)
            step = lambda x, one: (equinox.combine(one, rest)(x), None)  # noqa: E731
            return self.last(jax.lax.scan(step, x, arrays)[0])

    net = Net(make(jax.random.split(jax.random.key(0), 3)), equinox.nn.Linear(4, 4, key=jax.random.key(0)))
    dense = [row.operation.path for row in layers(jax.vmap(net))]
    assert dense == ["layers/linear", "last"]


class Training(nnx.Module):
    def __init__(self, layer):
        self.first, self.inner = nnx.Linear(4, 4, rngs=nnx.Rngs(0)), layer

    def __call__(self, x):
        return self.inner(self.first(x))


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (
            lambda: nnx.BatchNorm(4, rngs=nnx.Rngs(0)),
            r"BatchNorm at 'inner' .*use_running_average.*model\.eval",
        ),
        (lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0)), r"Dropout at 'inner' .*deterministic.*model\.eval\(\)"),
    ],
    ids=["BatchNorm", "Dropout"],
)
def test_an_nnx_model_in_training_mode_is_refused(layer, match):
    net = Training(layer())
    with pytest.raises(ValueError, match=match):
        lrp.vjp(net, X, composite=LRP_0)
    net.eval()
    assert next(row.operation.path for row in rows(net)) == "first"


def test_nnx_layers_that_need_no_mode():
    net = Training(nnx.Dropout(0.0, rngs=nnx.Rngs(0)))  # draws nothing
    assert np.isfinite(lrp.vjp(net, X, composite=LRP_0)[1](np.ones((2, 4), np.float32))[0]).all()


def test_haiku_paths_are_parameters_without_the_tilde():
    net = haiku.without_apply_rng(haiku.transform(lambda x: haiku.nets.MLP([4, 3])(x)))
    params = net.init(jax.random.key(0), X)
    assert "mlp/~/linear_0" in params
    f = lambda x: net.apply(params, x)  # noqa: E731
    assert [row.operation.path for row in rows(f)] == ["mlp/linear_0", "mlp", "mlp/linear_1"]
    y, pullback = lrp.vjp(f, X, composite=LRP_0, watch=["mlp/~/linear_0", "mlp/linear_0"])
    seen = pullback(y)[1]
    np.testing.assert_array_equal(seen["mlp/~/linear_0"], seen["mlp/linear_0"])
    composite = lrp.Composite((("mlp/~/linear_0", lrp.Flat()),)) | LRP_0
    assert rows(f, composite)[0].rule == lrp.Flat()


def test_keras_models_in_models_keep_masks():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="last")], name="inner")
    tokens = keras.Input((6,), dtype="int32")
    embedded = keras.layers.Embedding(7, 4, mask_zero=True, name="table")(tokens)
    net = keras.Model(tokens, inner(keras.layers.GlobalAveragePooling1D(name="mean")(embedded)))
    given = np.array([[1, 2, 3, 0, 0, 0]])
    y, pullback = lrp.vjp(net, given, composite=LRP_0, watch=["table", "inner/last"])
    np.testing.assert_allclose(y, net(given), rtol=1e-5, atol=1e-6)
    (relevance,), seen = pullback(y)
    assert seen["inner/last"].shape == (1, 3) and np.any(relevance[0, :3])
    np.testing.assert_allclose(relevance[0, 3:], 0, atol=1e-12)  # what the mask hides
