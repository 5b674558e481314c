"""Functions of single entries, however many operations they are written with, as one node each.

A value whose entries are functions of the entries of one other value, its root, is explained as one step from there:
GELU, SiLU, x / (1 + |x|), a scale with a shift. Bodies may share equations, so that a value used twice is no end.
"""

import dataclasses

import jax.numpy as jnp

from jxai.lrp.engine.facts import Facts, Graph, Node, chosen_by, make_node, rounds
from jxai.lrp.engine.graph import Value
from jxai.lrp.engine.primitives import Linear, row
from jxai.lrp.rules.operation import Kind

_FUSED = (Kind.SHIFT, Kind.MOVE, Kind.ACTIVATION, Kind.SUM, Kind.PRODUCT, Kind.OTHER, Kind.NORMALIZATION)


@dataclasses.dataclass(frozen=True)
class _Chain:
    """The way from a root to a value.

    Attributes:
        root: where it begins.
        held: what varies on the way and carries no relevance.
        function: it does more than scale and shift.
        normalizes: it scales by a statistic.
        shifts: it shifts.
        scales: it scales.
        given: it scales by what is given, as weights are.
    """

    root: Value
    held: frozenset[Value] = frozenset()
    function: bool = False
    normalizes: bool = False
    shifts: bool = False
    scales: bool = False
    given: bool = False

    def kind(self, below: Node | None) -> Kind:
        """What it is to a rule, given the node that gives its root."""
        if self.function:
            return Kind.ACTIVATION
        behind = below is not None and below.kind in (Kind.NORMALIZATION, Kind.CENTERING)
        if self.normalizes or (behind and (self.shifts or self.scales)):
            return Kind.NORMALIZATION
        if not self.shifts:
            return Kind.MOVE
        # A scale by a number of the program and a shift are two operations; a given scale is one that was not merged.
        return Kind.AFFINE if self.given else Kind.SHIFT


def fuse_entries(graph: Graph, facts: Facts, watched: set[Value]) -> Graph:
    """Chains of functions of each entry as one node.

    Args:
        graph: the nodes.
        facts: of the program.
        watched: values that someone looks at, which end a chain.

    Returns:
        The graph.
    """
    chains: dict[Value, _Chain] = {}
    wanted: dict[Value, None] = {}
    for node in graph.nodes:
        chain = _extended(facts, node, chains, watched)
        if chain is not None:
            chains[node.outputs[0]] = chain
        for value in (*node.inputs, *node.constants):
            # What the chain goes on from is no end of one.
            if value in chains and (chain is None or value is chain.root):
                wanted[value] = None
    wanted.update(dict.fromkeys(v for v in (*facts.ends, *watched) if v in chains))
    found: dict[Value, Node] = {}
    for value in wanted:
        chain = chains[value]
        body = facts.back(value, lambda v, c=chain: v is c.root or v in c.held or not facts.varies(v))
        node = make_node(facts, Kind.MOVE, body, [value], chain.held)
        found[value] = dataclasses.replace(node, kind=chain.kind(graph.producer.get(chain.root)))
    return graph.with_nodes(found)


def _extended(facts: Facts, node: Node, chains: dict[Value, _Chain], watched: set[Value]) -> _Chain | None:
    """The chain that ends with a node, or None where it is no function of each entry."""
    if not _is_entrywise(facts, node):
        return None
    (equation,) = node.equations
    known = row(equation)
    affine = known.affine and not rounds(equation)

    def before(value: Value) -> _Chain:
        chain = chains.get(value)
        # A normalization is an operation of its own, and so is what follows it beside scales and shifts.
        apart = chain is not None and (node.kind is Kind.NORMALIZATION or (chain.normalizes and not affine))
        return _Chain(value) if chain is None or apart or value in watched else chain

    parts = [before(v) for v in node.inputs]
    root = parts[0].root
    if any(part.root is not root for part in parts):
        return None
    if any(v.shape != root.shape for v in (*node.inputs, *node.outputs)):
        return None
    # A choice by a mask or by other entries moves entries; by the entry itself it is a function of it.
    if known.selects and not chosen_by(facts, equation.inputs[0], [root]):
        return None
    held = frozenset(v for v in node.constants if facts.varies(v))
    return _Chain(
        root,
        held.union(*(part.held for part in parts)),
        function=not affine or _of_itself(node) or any(part.function for part in parts),
        normalizes=node.kind is Kind.NORMALIZATION or any(part.normalizes for part in parts),
        shifts=(known.shifts and any(v not in node.inputs for v in equation.inputs))
        or any(part.shifts for part in parts),
        scales=known.scales or any(part.scales for part in parts),
        given=(known.scales and any(facts.given(v) for v in equation.inputs))
        or any(part.given for part in parts),
    )


def _is_entrywise(facts: Facts, node: Node) -> bool:
    if node.kind not in _FUSED or len(node.equations) != 1 or len(node.outputs) != 1 or not node.inputs:
        return False
    (equation,) = node.equations
    known = row(equation)
    if node.kind is Kind.OTHER and equation.name in ("exp", "exp2"):
        return False  # of a normalization that is not known
    values = (*node.outputs, *node.inputs)
    real = not any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in values)
    return known.entrywise and real and facts.varies(node.outputs[0])


def _of_itself(node: Node) -> bool:
    """Whether a node multiplies a value by itself, or divides by it: no scale."""
    (equation,) = node.equations
    known = row(equation)
    if not known.scales:
        return False
    if known.linear is Linear.EACH:
        return all(v in node.inputs for v in equation.inputs)
    return equation.inputs[1] in node.inputs
