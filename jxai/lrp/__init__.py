"""Layer-wise relevance propagation of Flax models, as pure functions that can be trained through."""

from jxai.lrp.composites import Composite, sun2020
from jxai.lrp.layer import Layer, Linear
from jxai.lrp.rules import AlphaBeta, Epsilon, LinearRule, Pass, Rule
from jxai.lrp.vjp import relevance, vjp

__all__ = [
    "AlphaBeta",
    "Composite",
    "Epsilon",
    "Layer",
    "Linear",
    "LinearRule",
    "Pass",
    "Rule",
    "relevance",
    "sun2020",
    "vjp",
]
