"""`jxai.models` under hostile input: fields and shapes; what a network makes of NaN is NaN, see `docs/hostile.md`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformer_cases
from hypothesis import strategies as st
from strategies import EFFORTS, Argument, Case, Spoilt, choice, count, given_as, one_of, search, unheard_of

from jxai import models

EXEMPT = {
    "MobileStage": "sizes, which `EfficientNet` looks at",
    "WeightsReport": "what became of the tensors",
    "encoder_names": "takes nothing",
}


def images(side, *, channels=3, rank=4):
    shape = (2, side, side, channels) if rank == 4 else (2, side, channels)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    odd = [
        x[:0],
        x[..., :0],
        x[0],
        x[None],
        x[:, :1],
        x.ravel(),
        np.zeros(()),
        np.zeros((2, 10**5, 1, 3))[:, ::7],
    ]
    odd += [x.astype(dtype) for dtype in (np.int32, np.uint8, bool, np.float16, np.float64)]
    wrong = [x.astype(complex), x.astype(object), x.astype(str), x.tolist(), None, "text", 3.0, {}]
    return Argument(
        lambda size: st.just(jnp.asarray(x)),
        lambda size: st.sampled_from([*map(Spoilt, odd), *(Spoilt(v, refused=True) for v in wrong)]),
    )


def tuples(*good, length=True):
    """Sizes in a tuple."""
    first = good[0]
    wrong = [(), (0,), (-1,), (1.5,), ("2",), None, 3, "text", (None,), *([first * 2] if length else [])]
    return one_of(*good, bad=[Spoilt(v, refused=v != () or length) for v in wrong])


NUM_CLASSES = count(1, 3)
WIDTHS = {"stage_sizes": tuples((1, 1)), "widths": tuples((4, 8))}
CONV = {"width": count(2, 4), "num_pools": count(0, 1, least=0), "pooled_padding": count(0, 1, least=0)}
RATE = one_of(0.0, 0.5, bad=[Spoilt(v, refused=True) for v in (-0.1, 1.5, float("nan"), None, "text")])
FACTOR = one_of(
    1.0, 0.5, bad=[Spoilt(v, refused=True) for v in (0, -1.0, float("nan"), float("inf"), None, "text")]
)
STAGE = models.MobileStage(1, 8, expansion=2)
STAGES = one_of(
    (STAGE,),
    bad=[
        Spoilt(v, refused=True)
        for v in (
            (),
            None,
            3,
            ("text",),
            (models.MobileStage(0, 8),),
            (models.MobileStage(1, 8, kernel=1.5),),
        )
    ],
)
RESNET = {"widths": tuples((2, 2, 2, 4)), "stem": choice("32", "84"), "stem_width": count(2)}
DENSE = {"growth": count(2), "bottleneck": count(2), "stem_width": count(4), "num_classes": NUM_CLASSES}
DEEP = {"expansion": count(2), "stem_width": count(2), "num_classes": NUM_CLASSES}
MOBILE = {
    "num_classes": NUM_CLASSES,
    "stages": STAGES,
    "width_factor": FACTOR,
    "depth_factor": FACTOR,
    "dropout_rate": RATE,
}
VGG = {
    "widths": tuples((2, 4)),
    "stage_sizes": tuples((1, 1)),
    "dense_widths": tuples((4,), (), length=False),
    "dropout_rate": RATE,
    "num_classes": NUM_CLASSES,
}


def network(kind, x, /, *, takes_train=True, **fields):
    """What a module's first call gives, traced and not computed."""

    def call(x, **fields):
        module = kind(**fields)
        options = {"train": False} if takes_train else {}
        found, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x, **options))
        return found.shape

    return Case(call, {"x": x, **fields}, holds=lambda shape, given: 0 not in shape and shape[0] == 2)


class Skips(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return (
            nn.Dense(2, name="top")(nn.relu(nn.Dense(3, name="low")(x.mean((1, 2))))) + x.sum((1, 2))[:, :2]
        )


def split(model, path, image_shape):
    features, head = models.split(model, path, image_shape=image_shape, train=False)
    return jax.eval_shape(
        lambda: head(
            v := model.init(jax.random.key(0), x := jnp.ones((1, 8, 8, 3)), train=False), features(v, x)
        )
    ).shape


TENSORS = {"fc.weight": np.ones((2, 3)), "fc.bias": np.zeros(2)}
VARIABLES = {"params": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
NO_FILE = [
    *(Spoilt(v, refused=True) for v in (3, [], b"a.npz", "/bin/sh")),
    *map(Spoilt, ("/no/such.npz", "/tmp", "a\0b.npz", "x" * 5000)),
]


def unless_missing(function):
    """Where there is no file, that is the answer."""

    def call(**given):
        try:
            return function(**given)
        except FileNotFoundError as error:
            assert str(error).startswith("expected ")
            return None

    return call


CASES = {
    "BottleneckBlock": network(
        models.BottleneckBlock,
        images(4),
        width=count(2),
        stride=count(1, 2),
        expansion=count(2),
        outer_size=count(1),
    ),
    "BottleneckResNet": network(models.BottleneckResNet, images(32), **WIDTHS, **DEEP),
    "Classifier": network(
        models.Classifier,
        images(16),
        num_classes=NUM_CLASSES,
        encoder=given_as(
            lambda size: models.Conv4(width=2),
            *(Spoilt(v, refused=True) for v in (None, 3, nn.Dense)),
        ),
    ),
    "Conv4": network(models.Conv4, images(16), **CONV),
    "Conv4NP": network(models.Conv4NP, images(16), **CONV),
    "Conv6": network(models.Conv6, images(16), **CONV),
    "Conv6NP": network(models.Conv6NP, images(16), **CONV),
    "ConvNet": network(models.ConvNet, images(16), depth=count(1, 2), **CONV),
    "DenseLayer": network(models.DenseLayer, images(4), growth=count(2), bottleneck=count(1, 2)),
    "DenseNet": network(models.DenseNet, images(32), stage_sizes=tuples((1, 1), length=False), **DENSE),
    "DenseNet121": network(models.DenseNet121, images(32), stage_sizes=tuples((1, 1), length=False), **DENSE),
    "EfficientNet": network(models.EfficientNet, images(16), **MOBILE),
    "EfficientNetB0": network(models.EfficientNetB0, images(16), **MOBILE),
    "EfficientNetLite0": network(models.EfficientNetLite0, images(16), **MOBILE),
    "Fire": network(models.Fire, images(4), takes_train=False, squeeze=count(2), expand=count(2)),
    "MobileBlock": network(
        models.MobileBlock,
        images(4),
        width=count(4),
        kernel=count(1, 3),
        stride=count(1, 2),
        expansion=count(1, 2),
        squeeze_excite=one_of(False, True),
    ),
    "ResNet": network(
        models.ResNet, images(16), stage_sizes=tuples((1, 1)), **{**RESNET, "widths": tuples((2, 4))}
    ),
    "ResNet10": network(models.ResNet10, images(32), **RESNET),
    "ResNet12": network(
        models.ResNet12, images(32), widths=tuples((2, 2, 2, 4), length=False), stem_width=count(2)
    ),
    "ResNet18": network(models.ResNet18, images(32), stage_sizes=tuples((1, 1, 1, 1)), **RESNET),
    "ResNet34": network(models.ResNet34, images(32), stage_sizes=tuples((1, 1, 1, 1)), **RESNET),
    "ResNet50": network(models.ResNet50, images(32), **WIDTHS, **DEEP),
    "ResNet101": network(models.ResNet101, images(32), **WIDTHS, **DEEP),
    "ResNet152": network(models.ResNet152, images(32), **WIDTHS, **DEEP),
    "SimpleBlock": network(models.SimpleBlock, images(4), width=count(2, 3), stride=count(1, 2)),
    "SqueezeNet": network(
        models.SqueezeNet,
        images(32),
        num_classes=NUM_CLASSES,
        stem_width=count(2),
        stages=one_of(
            (((1, 2),),),
            bad=[Spoilt(v, refused=True) for v in ((), None, 3, (3,), ((3,),), (((0, 2),),), (((1.5, 2),),))],
        ),
        dropout_rate=RATE,
    ),
    "TransformerBlock": network(
        models.TransformerBlock,
        images(4, channels=4, rank=3),
        takes_train=False,
        num_heads=count(1, 2, odd=(3,)),
        mlp_width=count(4),
    ),
    "VGG": network(models.VGG, images(16), **VGG),
    "VGG16": network(models.VGG16, images(16), **VGG),
    "VisionTransformer": network(
        models.VisionTransformer,
        images(8),
        num_classes=NUM_CLASSES,
        patch_size=count(2, 4, odd=(3, 100)),
        width=count(4, 8),
        depth=count(1),
        num_heads=count(1, 2, odd=(3,)),
        mlp_width=count(4),
    ),
    "efficientnet_lite0": Case(
        unless_missing(models.efficientnet_lite0), {"path": one_of("/none.pth", bad=NO_FILE)}
    ),
    "encoder": Case(
        lambda **given: type(models.encoder(**given)).__name__,
        {
            "name": choice("conv4", "conv6np"),
            "image_size": count(32, 84),
            "width": count(4, 64),
            "num_pools": count(0, 2, least=0, odd=(30,)),
            "pooled_padding": count(1, least=0),
        },
    ),
    "fill_variables": Case(
        models.fill_variables,
        {
            "variables": one_of(
                VARIABLES,
                bad=[
                    *(
                        Spoilt(v, refused=True)
                        for v in (None, 3, [], {"params": {"kernel": "text", "bias": 0}})
                    ),
                    *(Spoilt(v) for v in ({}, {"params": {}}, {"params": {"kernel": jnp.ones((2, 3))}})),
                ],
            ),
            "tensors": one_of(
                TENSORS,
                bad=[
                    *(Spoilt(v, refused=True) for v in (None, 3, [], {**TENSORS, "fc.bias": "text"})),
                    *(
                        Spoilt({**TENSORS, "fc.weight": v})
                        for v in (np.ones((3, 2)), np.ones((2, 3), int), np.ones(0))
                    ),
                    Spoilt({}),
                ],
            ),
            "modules": one_of({"": "fc"}, bad=[Spoilt(v, refused=True) for v in (None, 3, {"a": "fc"}, [])]),
        },
    ),
    "load_pretrained": Case(
        unless_missing(models.load_pretrained),
        {
            "model": one_of(
                models.ResNet50(),
                bad=[Spoilt(v, refused=True) for v in (None, 3, models.Conv4(), nn.Dense(2))],
            ),
            "path": one_of("/none.pth", bad=NO_FILE),
            "image_size": count(224),
        },
    ),
    "max_pool_2x2": Case(
        models.max_pool_2x2, {"x": images(5)}, holds=lambda found, given: found.shape == (2, 2, 2, 3)
    ),
    "read_weights": Case(
        unless_missing(models.read_weights),
        {"path": one_of("/none.pth", bad=[*NO_FILE, Spoilt(None, refused=True)])},
    ),
    "split": Case(
        split,
        {
            "model": one_of(
                models.Classifier(models.ConvNet(depth=1, num_pools=1, width=2), 3),
                bad=[Spoilt(v, refused=True) for v in (None, 3, Skips(), nn.Dense)],
            ),
            "path": one_of(
                "encoder", bad=[Spoilt(v, refused=True) for v in ("", "/", "nothing", None, 3, "encoder/")]
            ),
            "image_shape": one_of(
                (8, 8, 3),
                [8, 8, 3],
                bad=[
                    Spoilt(v, refused=True)
                    for v in ((), (8, 8), (0, 8, 3), (8.5, 8, 3), None, 3, "text", (8, 8, -1))
                ],
            ),
        },
    ),
} | transformer_cases.CASES
# They ask for a file that nobody put there.
NEVER_ANSWERED = ("efficientnet_lite0", "load_pretrained", "read_weights", *transformer_cases.NEVER_ANSWERED)


@EFFORTS
@pytest.mark.parametrize("name", CASES)
def test_an_answer_or_a_clear_error(name, examples):
    search(name, CASES[name], examples)


def test_every_public_function_is_here():
    assert not unheard_of("models", CASES, EXEMPT)
