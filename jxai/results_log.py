"""A log of finished pieces of a long measurement, so that a run that was stopped goes on where it was."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jxai import sealing
from jxai.errors import InputError


class ResultsLog:
    """Records with a key each, a line of JSON a record, below a first line with the settings they were made with.

    What was appended is read back as it was: a record is what `json` makes of it (floats keep every bit, tuples
    become lists), whether it was measured now or by an earlier run. Python's `json` also writes NaN and Infinity.
    Each line has a digest of the rest of it. A record that is not as it was written is named and does not count; nor
    does a last line without its end, which a killed process leaves. The next `append` writes the file without them.
    One process writes at a time.

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
        whole = content[: content.rfind(b"\n") + 1]
        self._lines: list[bytes] = []  # of the file, as far as they are whole
        for number, line in enumerate(whole.splitlines(keepends=True), 1):
            read = self._parse(line, number)
            if number == 1 and read is None:
                raise InputError(f"expected a log of results, got line 1 of {path}: remove the file")
            if read is None:
                print(f"note: line {number} of {path} is damaged: its record is made anew", file=sys.stderr)
                continue
            if number == 1 and (there := read.get("settings")) != self.settings:
                raise InputError(
                    f"expected {self._differences(there)}: give these settings again or another folder"
                )
            if number > 1:
                self.records[read["key"]] = read
            self._lines.append(line)
        self._is_whole = b"".join(self._lines) == content

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
            raise InputError(
                f"expected a record with a new string as its key, got {key!r}: ask done(key) before"
            )
        lines = [read] if self._lines else [{"settings": self.settings}, read]
        new = [(json.dumps(sealing.seal(line), ensure_ascii=False) + "\n").encode() for line in lines]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._is_whole:
            with self.path.open("ab") as file:
                file.write(b"".join(new))
        else:
            sealing.write_whole(self.path, b"".join([*self._lines, *new]))
            self._is_whole = True
        self._lines += new
        self.records[key] = read
        return read

    def _parse(self, line: bytes, number: int) -> dict[str, Any] | None:
        """What a line says; None where it is none of a log's, or not as it was written."""
        try:
            read = sealing.unseal(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            return None
        return read if ("settings" if number == 1 else "key") in read else None

    def _differences(self, there: Any) -> str:
        """The settings that are not those of the file."""
        there = there if isinstance(there, dict) else {}
        names = [name for name in {**there, **self.settings} if there.get(name) != self.settings.get(name)]
        old, new = ({name: settings.get(name) for name in names} for settings in (there, self.settings))
        return f"the settings {old} of {self.path}, got {new}"


def _as_read(value: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value))
