"""Pickles read without `pickle`: plain values, and stand-ins for whatever they name.

A pickle is a program for a machine with a stack. It is carried out here one instruction at a time, on plain data:
nothing is imported, nothing called but what the caller gives, no value hashed or compared that another one holds. So
time and memory grow with the file's size and no faster, whatever its program does.
"""

import pickletools
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, cast

from jxai.checks import printable

# A tensor takes about 30 instructions; the longest values are numbers of a random generator's state.
_MOST_INSTRUCTIONS = 2**21
_MOST_PLACES = 2**20
_KEYS = (str, int, float, bool, bytes, type(None))


class RefusedError(Exception):
    """What a file holds is nothing that is taken from it; the message goes on after the file's name."""


class Inert:
    """Stands for an object that is not made: what the pickle puts into it is dropped."""

    __slots__ = ()


INERT = Inert()


class Named:
    """Stands for something that a pickle names, and may call if there is a function for it."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any] | None = None):
        self.name, self.call = name, call


def read_pickle(file: BinaryIO, *, find: Callable[[str], Any], refer: Callable[[Any], Any]) -> Any:
    """Carry out the pickle that a file stands at; the file stands behind it then.

    Args:
        file: what holds it; reading n bytes must not take memory for more than are there.
        find: what stands for a name such as "collections.OrderedDict".
        refer: what stands for a reference to something outside of the pickle.

    Returns:
        Numbers, texts, bytes, None, tuples, lists and dictionaries (never of a subclass), and stand-ins.

    Raises:
        RefusedError: it is too long, or does something that plain values do not need.
        ValueError, IndexError, KeyError: it is damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    def two() -> tuple[Any, Any]:
        second = stack.pop()
        return stack.pop(), second

    spent = 0
    instructions = cast("Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]", pickletools.genops(file))
    for opcode, argument, _ in instructions:
        spent += 1
        if spent > _MOST_INSTRUCTIONS:
            raise RefusedError(f"with more than {_MOST_INSTRUCTIONS} instructions in its pickle: {_SAVE}")
        if marks and marks[-1] > len(stack):
            raise RefusedError("with a damaged pickle: download it again")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "POP":
                if marks and marks[-1] == len(stack):
                    marks.pop()
                else:
                    stack.pop()
            case "POP_MARK":
                since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case (
                "INT"
                | "BININT"
                | "BININT1"
                | "BININT2"
                | "LONG"
                | "LONG1"
                | "LONG4"
                | "FLOAT"
                | "BINFLOAT"
                | "STRING"
                | "BINSTRING"
                | "SHORT_BINSTRING"
                | "BINBYTES"
                | "SHORT_BINBYTES"
                | "BINBYTES8"
                | "UNICODE"
                | "SHORT_BINUNICODE"
                | "BINUNICODE"
                | "BINUNICODE8"
            ):
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack.append(tuple(stack.pop() for _ in range(size))[::-1])
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                stack.append(since_mark())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                values = since_mark()
                stack.append(dictionary(zip(values[::2], values[1::2], strict=True)))
            case "EMPTY_SET" | "BYTEARRAY8":
                stack.append(INERT)
            case "FROZENSET":
                since_mark()
                stack.append(INERT)
            case "APPEND":
                target, value = two()
                _extend(target, [value])
                stack.append(target)
            case "APPENDS" | "ADDITEMS":
                values = since_mark()
                _extend(stack[-1], values)
            case "SETITEM":
                value = stack.pop()
                key = stack.pop()
                _update(stack[-1], [(key, value)])
            case "SETITEMS":
                values = since_mark()
                _update(stack[-1], zip(values[::2], values[1::2], strict=True))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                if argument >= _MOST_PLACES:
                    raise RefusedError(f"with a value in place {argument} of its pickle: download it again")
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(find(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                module, name = two()
                if not (isinstance(module, str) and isinstance(name, str)):
                    raise RefusedError("with a damaged pickle: download it again")
                stack.append(find(f"{module}.{name}"))
            case "REDUCE" | "NEWOBJ":
                function, arguments = two()
                # What one instruction may copy counts as many.
                spent += sum(len(one) for one in arguments if isinstance(one, list | dict | tuple))
                if spent <= _MOST_INSTRUCTIONS:
                    stack.append(_called(function, arguments))
            case "NEWOBJ_EX":
                stack.pop()
                function, _ = two()
                stack.append(_inert(function))
            case "OBJ":
                function, *_ = since_mark()
                stack.append(_inert(function))
            case "INST":
                since_mark()
                stack.append(_inert(find(argument.replace(" ", ".", 1))))
            case "BUILD":
                stack.pop()  # attributes, such as a state dict's _metadata
                if not isinstance(stack[-1], dict | Inert):
                    raise RefusedError("with attributes for what has none: download it again")
            case "BINPERSID" | "PERSID":
                stack.append(refer(stack.pop() if opcode.name == "BINPERSID" else argument))
            case other:  # extension registries, buffers outside of the file
                raise RefusedError(f"with the instruction {other} in its pickle: {_SAVE}")
    raise RefusedError("with a pickle that is cut short: download it again")


_SAVE = "save model.state_dict() alone"


def dictionary(items: Any) -> dict[Any, Any]:
    """A dictionary of pairs, whose keys are plain."""
    found: dict[Any, Any] = {}
    _update(found, items)
    return found


def _update(target: Any, items: Any) -> None:
    if isinstance(target, Inert):
        return
    if not isinstance(target, dict):
        raise RefusedError(f"with items for {described(target)}: download it again")
    for pair in items:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise RefusedError("with a dictionary of something else than pairs: download it again")
        key, value = pair
        if isinstance(key, Named):
            key = key.name
        # A tuple's hash is that of all it holds, which may be without end.
        if not isinstance(key, _KEYS):
            raise RefusedError(f"with {described(key)} as a key of a dictionary: {_SAVE}")
        target[key] = value


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target += values
    elif not isinstance(target, Inert):
        raise RefusedError(f"with items for {described(target)}: download it again")


def _called(function: Any, arguments: Any) -> Any:
    if not isinstance(arguments, tuple):
        raise RefusedError("with a damaged pickle: download it again")
    if isinstance(function, Named) and function.call is not None:
        return function.call(*arguments)
    return _inert(function)


def _inert(function: Any) -> Inert:
    if not isinstance(function, Inert):
        raise RefusedError(f"with a call of {described(function)}: {_SAVE}")
    return INERT


def described(value: Any) -> str:
    """What a message says of a value of a pickle, without looking at what it holds."""
    if isinstance(value, Named):
        return printable(value.name, 100)
    if isinstance(value, str | bytes):
        return printable(repr(value[:100]), 100)
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**64):
        return repr(value)
    kind = "object" if isinstance(value, Inert) else type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
