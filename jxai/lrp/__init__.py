"""Layer-wise relevance propagation of any Flax model, as pure functions that can be trained through."""

from jxai.lrp.calls import mark
from jxai.lrp.conservation import Conservation, conservation
from jxai.lrp.coverage import Coverage, Row, coverage
from jxai.lrp.engine.marks import fixed
from jxai.lrp.engine.primitives import declare, linear_operation
from jxai.lrp.patching import relevance_patching
from jxai.lrp.rules.base import Constant, Gradient, HoldGate, Norm, Pass, Rule, Shift, Split
from jxai.lrp.rules.composites import Composite
from jxai.lrp.rules.layers import AlphaBeta, Box, Epsilon, Flat, Gamma, WSquare, ZPlus
from jxai.lrp.rules.linear import LinearRule, Of, Part, Term
from jxai.lrp.rules.operation import Application, Kind, Linear, Operation, attention_weights, first
from jxai.lrp.rules.presets import (
    CPLRP,
    AttnLRP,
    Deconvnet,
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    ExcitationBackprop,
    GuidedBackprop,
    sun2020,
)
from jxai.lrp.rules.relu import DeconvRelu, GuidedRelu
from jxai.lrp.tuning import rule_parameters
from jxai.lrp.vjp import relevance, vjp
from jxai.lrp.weight_relevance import weight_relevance

__all__ = [
    "CPLRP",
    "AlphaBeta",
    "Application",
    "AttnLRP",
    "Box",
    "Composite",
    "Conservation",
    "Constant",
    "Coverage",
    "DeconvRelu",
    "Deconvnet",
    "Epsilon",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "ExcitationBackprop",
    "Flat",
    "Gamma",
    "Gradient",
    "GuidedBackprop",
    "GuidedRelu",
    "HoldGate",
    "Kind",
    "Linear",
    "LinearRule",
    "Norm",
    "Of",
    "Operation",
    "Part",
    "Pass",
    "Row",
    "Rule",
    "Shift",
    "Split",
    "Term",
    "WSquare",
    "ZPlus",
    "attention_weights",
    "conservation",
    "coverage",
    "declare",
    "first",
    "fixed",
    "linear_operation",
    "mark",
    "relevance",
    "relevance_patching",
    "rule_parameters",
    "sun2020",
    "vjp",
    "weight_relevance",
]
