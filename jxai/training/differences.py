"""What a checkpoint's configuration has that another one has not."""

import dataclasses
import json
from typing import Any

from jxai.checks import shown
from jxai.errors import InputTypeError


def plain(config: Any) -> Any:
    """A configuration as JSON would read it back, so that tuples equal lists and paths equal strings."""

    def other(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        return str(value)

    try:
        return json.loads(json.dumps(config, default=other))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputTypeError(
            f"expected a configuration that JSON can hold, got {shown(config)}: {error}"
        ) from error


def differences(saved: Any, mine: Any, *, name: str = "", ignore: tuple[str, ...] = ()) -> list[str]:
    """One line for each field that differs, by dotted name."""
    if name in ignore and name:
        return []
    if isinstance(saved, dict) and isinstance(mine, dict):
        lines = []
        for field in sorted(saved.keys() | mine.keys()):
            inner = f"{name}.{field}" if name else field
            lines += differences(saved.get(field), mine.get(field), name=inner, ignore=ignore)
        return lines
    return [] if saved == mine else [f"{name or 'all of it'} is {saved!r} there and {mine!r} here"]
