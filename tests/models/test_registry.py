"""Encoders by name."""

import jax
import numpy as np
import pytest

from jxai import models


def test_every_name_gives_its_class():
    classes = {type(models.encoder(name, image_size=84)).__name__.lower() for name in models.encoder_names()}
    assert classes == set(models.encoder_names())


@pytest.mark.parametrize(
    ("image_size", "stem"), [(32, "32"), (63, "32"), (64, "84"), (84, "84"), (128, "224"), (224, "224")]
)
def test_image_size_chooses_the_stem(image_size, stem):
    assert models.encoder("resnet18", image_size=image_size).stem == stem


def test_options_reach_the_module():
    module = models.encoder("resnet10", image_size=84, stem="224", widths=(8, 8, 8, 16))
    assert module.stem == "224" and module.widths == (8, 8, 8, 16)
    assert models.encoder("conv4", image_size=32, width=16).width == 16


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match="conv4, conv4np, conv6, conv6np, resnet10, resnet12, resnet18, resnet34, got 'resnet11'",
    ):
        models.encoder("resnet11", image_size=32)


def test_unknown_option_lists_the_known_ones():
    with pytest.raises(TypeError, match="conv4 among depth, num_pools, pooled_padding, width, got stem"):
        models.encoder("conv4", image_size=32, stem="32")


@pytest.mark.parametrize(
    ("name", "smallest"), [("conv4", 16), ("conv4np", 10), ("resnet10", 8), ("resnet12", 16)]
)
def test_too_small_images(name, smallest):
    models.encoder(name, image_size=smallest)
    with pytest.raises(ValueError, match=f"at least {smallest} for {name}, got {smallest - 1}"):
        models.encoder(name, image_size=smallest - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("conv6", 84),
        ("conv6np", 224),
        ("resnet10", 32),
        ("resnet12", 84),
        ("resnet18", 84),
        ("resnet34", 224),
    ],
)
def test_encoders_run_at_full_size(name, image_size):
    module = models.encoder(name, image_size=image_size)
    x = jax.random.normal(jax.random.key(1), (2, image_size, image_size, 3))
    variables = jax.jit(lambda x: module.init(jax.random.key(0), x, train=False))(x)
    features, _ = jax.jit(lambda x: module.apply(variables, x, train=True, mutable=["batch_stats"]))(x)
    assert np.isfinite(features).all() and np.asarray(features).max() > 0
