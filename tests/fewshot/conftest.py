"""A few-shot system small enough to compile in a second or two, and episodes for it."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jxai import fewshot, models

# What the tests of this folder share is the module `compiling` beside this file. Last in the list.
sys.path.append(str(Path(__file__).resolve().parent))

from compiling import quick_jit

WAY, SHOT, QUERIES, SIDE = 3, 2, 2, 8


def draw_episode(seed=0, shot=SHOT, side=SIDE, dtype=np.float32):
    random = np.random.default_rng(seed)
    classes = random.normal(size=(WAY, 1, side, side, 3))

    def images(each):
        noise = random.normal(size=(WAY, each, side, side, 3))
        return (classes + 0.3 * noise).reshape(-1, side, side, 3).astype(dtype)

    def labels(each):
        return np.repeat(np.arange(WAY, dtype=np.int32), each)

    return fewshot.Episode(images(shot), labels(shot), images(QUERIES), labels(QUERIES), way=WAY)


def draw_features(seed=0, shot=SHOT, dtype=np.float32):
    """Maps of 4x4x4, some entries zero as behind a ReLU."""
    random = np.random.default_rng(seed)

    def part(each):
        maps = np.maximum(random.normal(size=(WAY * each, 4, 4, 4)), 0).astype(dtype)
        return maps, np.repeat(np.arange(WAY, dtype=np.int32), each)

    return fewshot.Episode(*part(shot), *part(QUERIES), way=WAY)


@dataclasses.dataclass(frozen=True)
class Tiny:
    """An encoder from 8x8 images to 4x4x4 maps, RelationNet's head, their variables, and what they are fed."""

    encoder: Any
    head: Any
    variables: Any
    episode: Any = staticmethod(draw_episode)
    features: Any = staticmethod(draw_features)
    way: int = WAY
    shot: int = SHOT
    side: int = SIDE


# One of each, small.
HEADS = {
    "relation": fewshot.RelationHead(features=4, hidden=3),
    "graph": fewshot.GraphHead(way=WAY, features=5, growth=4, widths=(6, 4)),
    "prototype": fewshot.PrototypeHead(),
    "matching": fewshot.MatchingHead(temperature=0.1),
    "cross attention": fewshot.CrossAttentionHead(hidden=3),
    "adapted": fewshot.AdaptedHead(way=WAY),
    "FEAT": fewshot.FEATHead(temperature=4.0),
}


def make_system(head):
    encoder = models.ConvNet(depth=1, width=4, num_pools=1)
    init = quick_jit(lambda key: fewshot.init_variables(encoder, head, key, image_size=SIDE))
    # Another draw than the initial zeros and ones, so that biases and running statistics matter.
    random = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.1 * np.abs(random.normal(size=leaf.shape)), np.float32),
        init(jax.random.key(0)),
    )
    return Tiny(encoder, head, variables)


@pytest.fixture(scope="session")
def tiny():
    return make_system(HEADS["relation"])


@pytest.fixture(scope="session", params=HEADS)
def system(request, tiny):
    """As `tiny`, with every head in turn."""
    return tiny if request.param == "relation" else make_system(HEADS[request.param])
