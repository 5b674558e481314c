"""A log of finished pieces of a long measurement, so that a run that was stopped goes on where it was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ResultsLog:
    """Records with a key each, a line of JSON a record, below a first line with the settings they were made with.

    What was appended is read back as it was: a record is what `json` makes of it (floats keep every bit, tuples
    become lists), whether it was measured now or by an earlier run. Python's `json` also writes NaN and Infinity.
    A last line without its end, which a killed process leaves, does not count and is overwritten. One process writes
    at a time.

    Attributes:
        path: the file.
        settings: what the records depend on, as JSON gives it back.
        records: by key, in the order of the file.
    """

    path: Path
    settings: dict[str, Any]
    records: dict[str, dict[str, Any]]

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        """Read what is there.

        Args:
            path: the file; it is made, with the folders above it, by the first `append`.
            settings: whatever changes the records, of JSON's types.

        Raises:
            ValueError: the file's settings are others, or it is no log.
        """
        self.path, self.settings, self.records = path, _as_read(settings), {}
        content = path.read_bytes() if path.exists() else b""
        self._length = content.rfind(b"\n") + 1  # up to where the file is whole
        lines = [
            self._parse(line, number) for number, line in enumerate(content[: self._length].splitlines(), 1)
        ]
        if lines and (there := lines[0].get("settings")) != self.settings:
            raise ValueError(
                f"expected {self._differences(there)}: give these settings again or another folder"
            )
        for line in lines[1:]:
            self.records[line["key"]] = line

    def done(self, key: str) -> bool:
        """Whether there is a record of this key."""
        return key in self.records

    def append(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Add a finished record to the file.

        Args:
            record: of JSON's types; its "key" is a string that no record has yet.

        Returns:
            The record as a later run reads it.

        Raises:
            ValueError: no key, or one that is there.
        """
        read = _as_read(record)
        key = read.get("key")
        if not isinstance(key, str) or self.done(key):
            raise ValueError(
                f"expected a record with a new string as its key, got {key!r}: ask done(key) before"
            )
        lines = [read] if self._length else [{"settings": self.settings}, read]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(self._length)
            file.seek(self._length)
            file.write(text)
        self._length += len(text)
        self.records[key] = read
        return read

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            read = json.loads(line)
        except ValueError:
            read = None
        if not isinstance(read, dict) or ("settings" if number == 1 else "key") not in read:
            raise ValueError(f"expected a log of results, got line {number} of {self.path}: remove the file")
        return read

    def _differences(self, there: Any) -> str:
        """The settings that are not those of the file."""
        there = there if isinstance(there, dict) else {}
        names = [name for name in {**there, **self.settings} if there.get(name) != self.settings.get(name)]
        old, new = ({name: settings.get(name) for name in names} for settings in (there, self.settings))
        return f"the settings {old} of {self.path}, got {new}"


def _as_read(value: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value))
