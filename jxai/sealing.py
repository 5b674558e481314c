"""Files that are read again: written whole, with digests that show whether they are as they were written.

Digests show damage, not forgery: whoever can write a file can write its digest too.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

_DIGEST = "digest"


def write_whole(path: Path, content: str | bytes | Callable[[IO[bytes]], Any]) -> None:
    """Writes a file beside its place and moves it there, so that a kill leaves the old one or the new one.

    What is there under the name is replaced, never written through: not the file that a link points to.

    Args:
        path: the file.
        content: its text or bytes, or what writes it into an open file.

    Raises:
        OSError: it cannot be written.
    """
    # A name that nobody can know before: two processes write apart, and no link waits there.
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # else a loss of power may leave an empty file under the new name
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def seal(about: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON makes of `about`, with a digest of all of it."""
    plain = json.loads(json.dumps(about))
    return {**plain, _DIGEST: _of_json(plain)}


def is_sealed(found: Mapping[str, Any]) -> bool:
    """Whether there is a digest, right or not."""
    return _DIGEST in found


def unseal(sealed: Mapping[str, Any]) -> dict[str, Any]:
    """What `seal` was given; a ValueError if it was altered since."""
    about = dict(sealed)
    if _DIGEST not in about:
        raise ValueError("a description without a digest, as earlier versions of jxai wrote it")
    if about.pop(_DIGEST) != _of_json(about):
        raise ValueError("a description that is not the one written")
    return about


def digest_of(*parts: bytes | memoryview) -> bytes:
    """16 bytes that tell contents apart; where one part ends and the next begins counts too."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _of_json(plain: Any) -> str:
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()
