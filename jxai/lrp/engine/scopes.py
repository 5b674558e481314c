"""Which calls of modules, name scopes and marks stand around a jaxpr's operations, and what they get and give."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jax.extend.source_info_util import new_name_stack

from jxai.errors import InputError
from jxai.lrp.calls import ModuleCall, normal

_SCOPE = re.compile(r"jxai:(\d+)")
_Scope = type(new_name_stack("one").stack[0])  # `jax.named_scope`'s entry; transformations have others

# So many paths an error lists.
_LISTED = 20

# Where an operation stands in a jaxpr and those that it calls: its number in the last, behind those of the calls.
Site = tuple[int, ...]
# One call in the traced function: the index of its record, and the site of the call of the jaxpr that it is in.
CallKey = tuple[int, Site]


@dataclasses.dataclass(eq=False)
class Call:
    """A module's call, a name scope or a mark, with the values that it got and gave.

    Attributes:
        record: the module (None of a scope or mark) and its path, as it is here: where a jitted function is traced
            once and called by several modules, the path of each.
        outer: the calls around it, outermost first.
        inputs: leaves of a module's first argument, by number.
        outputs: leaves of its results, by number; of a scope, what is used outside of it.
        site: where a module's or mark's result is marked.
        number: which of the graph's calls of this path it is, where there are several.
    """

    record: ModuleCall
    outer: tuple[CallKey, ...] = ()
    inputs: dict[int, Any] = dataclasses.field(default_factory=dict)
    outputs: dict[int, Any] = dataclasses.field(default_factory=dict)
    site: Site | None = None
    number: int | None = None

    @property
    def path(self) -> str:
        """The record's path, with the number where there are several calls: "conv#1"."""
        return self.record.path + ("" if self.number is None else f"#{self.number}")


class Scopes:
    """The calls of a graph, found as one walks over its operations.

    Attributes:
        calls: what was found, in order, outermost first.
        records: the calls of modules and marks that were met in tracing; name scopes are appended.
    """

    def __init__(self, calls: dict[CallKey, Call], records: list[ModuleCall]):
        self.calls = calls
        self.records = records
        self.last: tuple[CallKey, ...] = ()  # the calls around the operation before

    def inside(self, stack: Any, around: tuple[CallKey, ...], called: Site) -> tuple[CallKey, ...]:
        """The calls around an operation, by the name stack of its own jaxpr."""
        found = around
        entries = [entry.name for entry in stack.stack if isinstance(entry, _Scope)]
        for name, after in itertools.pairwise([*entries, ""]):
            if match := _SCOPE.fullmatch(name):
                key = (int(match[1]), called)
                self.call(key, found)
            elif not self.of_library(name, found, after):
                key = self.scope(name, found)
            else:
                continue
            found = found if key in found else (*found, key)
        self.last = found
        return found

    def mark(self, place: dict[str, Any], value: Any, around: tuple[CallKey, ...], site: Site) -> None:
        """Note what a module gets or gives, or what is named, at a `mark_p` with the parameters `place`."""
        call = self.call((place["index"], site[:-1]), around)
        (call.inputs if place["side"] == "in" else call.outputs)[place["leaf"]] = value
        call.site = site

    def call(self, key: CallKey, around: tuple[CallKey, ...]) -> Call:
        """The call of a module or mark."""
        if key not in self.calls:
            record, outer = self.records[key[0]], tuple(one for one in around if one != key)
            modules = [one for one in outer if self.calls[one].record.module is not None]
            parent = record.parent
            if modules and parent is not None and self.records[modules[-1][0]] is not parent:
                base, below = self.calls[modules[-1]].record.path, record.path.removeprefix(parent.path)
                if record.path.startswith(parent.path):
                    record = dataclasses.replace(record, path=f"{base}/{below.strip('/')}".strip("/"))
            self.calls[key] = Call(record, outer)
        return self.calls[key]

    def scope(self, name: str, around: tuple[CallKey, ...]) -> CallKey:
        """The key of a name scope: the same as of the operation before, if that stands in it too."""
        outer = self.calls[around[-1]].record.path if around else ""
        path, depth = f"{outer}/{name}" if outer else name, len(around)
        if len(self.last) > depth and self.last[:depth] == around:
            before = self.calls[self.last[depth]].record
            if (before.method, before.path) == ("scope", path):
                return self.last[depth]
        self.records.append(ModuleCall(None, path, "scope"))
        key = (len(self.records) - 1, ())
        self.calls[key] = Call(self.records[-1], around)
        return key

    def of_library(self, name: str, around: tuple[CallKey, ...], after: str) -> bool:
        """Whether a name scope is one that a library opens by itself: around or in a module's call, or for einsum."""
        if "->" in name or "," in name:
            return True
        near = [int(match[1])] if (match := _SCOPE.fullmatch(after)) else []
        near += [around[-1][0]] if around else []
        records = [record for i in near if (record := self.records[i]).module is not None]
        whose = name.partition(".")[0]  # "RelationHead.forward": a method of the module around
        return any({name, whose} & _own_names(record) or name.startswith("eqx.nn.") for record in records)


def _own_names(record: ModuleCall) -> set[str]:
    """What a library calls the scope of a module's method."""
    module, method = record.module, record.method
    known = (record.path.rpartition("/")[2], getattr(module, "name", None), type(module).__name__)
    names = {name for name in known if isinstance(name, str)}
    return names | {method} | {f"{name}.{method}" for name in names}


def settle(
    calls: dict[CallKey, Call],
    made: Mapping[Any, tuple[CallKey, ...]],
    used: Iterable[tuple[Any, tuple[CallKey, ...]]],
    given: Iterable[Any],
) -> None:
    """Complete the calls of a graph: what name scopes give, which calls count, and their numbers.

    Args:
        calls: of the graph.
        made: of the values of its operations: the calls around the one that makes it.
        used: values with the calls around an operation that takes them, or () for the graph's outputs.
        given: the graph's inputs and constants.

    Raises:
        ValueError: a mark is given twice.
    """
    scopes = {key for key, call in calls.items() if call.record.method == "scope"}
    for value, around in used if scopes else ():
        for key in made.get(value, ()):
            if key in scopes and key not in around and value not in (outputs := calls[key].outputs).values():
                outputs[len(outputs)] = value
    alike: dict[str, list[Call]] = {}
    live = {*made, *given}
    for call in calls.values():
        if not live.isdisjoint(call.outputs.values()):
            alike.setdefault(call.record.path, []).append(call)
        else:
            call.outputs.clear()  # of no use, such as in a module's `init`
    for path, several in alike.items():
        marks = [call.outer for call in several if (call.record.module, call.record.method) == (None, "mark")]
        if len(set(marks)) < len(marks):
            raise InputError(
                f"expected one value with the mark '{path}', got {len(marks)}: give each a name of its own"
            )
        for number, call in enumerate(several if len(several) > 1 else ()):
            call.number = number


def find(calls: Iterable[Call], path: str) -> Call:
    """The one call of a path that gives one array.

    Args:
        calls: of a graph.
        path: of a module, name scope or mark; "conv#1" for one call of several.

    Returns:
        The call.

    Raises:
        ValueError: there is none, or there are several, or it gives several arrays.
    """
    known = {call.path: call for call in calls if call.outputs}
    found = [call for call in known.values() if normal(path) in (call.path, call.record.path)]
    if len(found) == 1 == len(found[0].outputs):
        return found[0]
    what = f"{len(found)} calls" if found else "no call"
    if len(found) == 1:
        what = f"{len(found[0].outputs)} arrays (`lrp.mark` names one)"
    names = [call.path for call in found] if len(found) > 1 else list(known)
    # The most similar, where there are many.
    listed = sorted(difflib.get_close_matches(path, names, _LISTED, 0.0))
    others = f" or {len(names) - len(listed)} others" if len(names) > len(listed) else ""
    raise InputError(
        "expected the path of a module, name scope or mark that is called once (outside of loops) and gives one "
        f"array, got '{path}' with {what}: take one of "
        + (", ".join(listed) + others or "no path; the function calls no module that is known")
    )
