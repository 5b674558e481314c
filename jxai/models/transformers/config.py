"""Reading config.json: fields by name, and what a model here does not compute."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jxai.checks import shown
from jxai.errors import InputError


def from_fields(cls: Any, config: Mapping[str, Any]) -> Any:
    """A dataclass of those entries that it has fields for; an InputError names one that is missing."""
    fields = dataclasses.fields(cls)
    for field in fields:
        if field.default is dataclasses.MISSING and config.get(field.name) is None:
            raise InputError(f"expected {field.name} in the configuration, got none: check config.json")
    names = {field.name for field in fields}
    return cls(**{name: value for name, value in config.items() if name in names and value is not None})


def refuse_others(config: Mapping[str, Any], **computed: Any) -> None:
    """An InputError where an entry is there, not None, and another than the one that is computed."""
    for name, value in computed.items():
        if config.get(name) not in (None, value):
            raise InputError(
                f"expected {name} {value}, got {shown(config[name])}: such models are not computed here"
            )
