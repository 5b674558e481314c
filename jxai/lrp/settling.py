"""What is known of steps once all are: where zeros carry relevance, where negative results carry none."""

from jxai.lrp.graph import Value
from jxai.lrp.linear import LinearRule
from jxai.lrp.operation import Kind
from jxai.lrp.plan import Step
from jxai.lrp.rule import DEFAULT, Norm, Pass, Split


def keep_zeros(steps: list[Step], outputs: list[Value]) -> None:
    """Where a value that is exactly zero may carry relevance, have it handed on rather than lost.

    Args:
        steps: in order; ReLU, sums and means get the rule that keeps it.
        outputs: values at which relevance starts.
    """
    loose = set(outputs)
    for step in reversed(steps):
        rule = step.rule
        if rule is None or step.operation is None:
            if step.nested is not None:
                loose.update(step.inputs)
            continue
        if isinstance(rule, LinearRule):
            if not rule.proportional:
                loose.update(step.inputs)
            continue
        if isinstance(rule, Pass):
            # What is zero may have a result, and so relevance, that is not.
            loose.update(step.inputs)
        if loose.isdisjoint(step.outputs):
            continue
        loose.update(step.inputs)
        if rule is DEFAULT:
            if step.operation.kind is Kind.ACTIVATION:
                step.rule = Pass()
            elif step.operation.kind in (Kind.SUM, Kind.MEAN) and not step.constants:
                step.rule = Norm(0.0, share_zeros=True)
        elif rule == Split() and step.operation.kind is Kind.PRODUCT and not step.constants:
            step.rule = Split(share_zeros=True)


def find_rectified(steps: list[Step], outputs: list[Value]) -> None:
    """Find layers whose result goes to a ReLU alone, which hands nothing on where it is negative.

    Args:
        steps: in order; `rectified` is set.
        outputs: values at which relevance starts.
    """
    uses: dict[Value, list[Step | None]] = {v: [None] for v in outputs}
    for step in steps:
        for value in (*step.inputs, *step.constants):
            uses.setdefault(value, []).append(step)
    for step in steps:
        if step.linear is not None and len(using := uses.get(step.outputs[0], [])) == 1:
            (after,) = using
            step.rectified = after is not None and after.relu and after.rule is DEFAULT
