"""The registry of domains, and loading one as a source."""

import dataclasses
import functools
import types
from collections.abc import Mapping

from jxai.data.source import Source, split_classes


@dataclasses.dataclass(frozen=True)
class Domain:
    """What is known of a domain before it is loaded.

    Attributes:
        name: what `load` calls it.
        description: what its pictures show.
        licence: where they come from and under which terms.
        settings: (shot, queries a class) of the two evaluations: 1-shot, and 5-shot or what replaces it.
        settings_note: how those settings differ from 1-shot and 5-shot with 15 queries, for tables; or empty.
    """

    name: str
    description: str
    licence: str
    settings: tuple[tuple[int, int], tuple[int, int]] = ((1, 15), (5, 15))
    settings_note: str = ""


DOMAINS: Mapping[str, Domain] = types.MappingProxyType(
    {
        domain.name: domain
        for domain in (
            Domain(
                name="latin",
                description="A-Z, 2-9 and thirteen signs in wild display typefaces",
                licence="Debian fonts-aenigma: free to redistribute and change, attribution to Brian Kent",
            ),
            Domain(
                name="hebrew",
                description="Hebrew letters",
                licence="Debian culmus, GPL-2 with font exception",
            ),
            Domain(
                name="thai",
                description="Thai letters and digits",
                licence="Debian fonts-tlwg-*, GPL-2+ with font exception",
            ),
            Domain(
                name="arabic",
                description="isolated Arabic letters",
                licence="Debian fonts-arabeyes, GPL-2",
            ),
            Domain(
                name="georgian",
                description="Georgian letters",
                licence="Debian fonts-bpg-georgian, GPL-2",
            ),
            Domain(
                name="fashion",
                description="photographs of clothes, Fashion-MNIST test images padded to 32",
                licence="MIT, Zalando",
            ),
            Domain(
                name="pictograms",
                description="animals, plants, food and drink in five drawing styles",
                licence="Noto Emoji Apache-2.0, Twemoji CC-BY 4.0, Fluent Emoji MIT, OpenMoji CC-BY-SA 4.0",
                settings=((1, 4), (4, 1)),
                settings_note="five pictures a class: 1-shot with 4 queries, 4-shot with 1 query",
            ),
        )
    }
)


def load(name: str, *, split: str = "all") -> Source:
    """Loads a domain, decoded into memory; the first call on a machine prepares it (about a second).

    The prepared copy lives in `$JXAI_DATA`, or in the user's cache.

    Args:
        name: a key of `DOMAINS`.
        split: classes by their place i in the stored order: "all", "base" (i % 2 = 0), "validation"
            (i % 4 = 1) or "novel" (i % 4 = 3).

    Returns:
        The source; its labels are numbered within the split.

    Raises:
        ValueError: unknown domain or split.
    """
    if name not in DOMAINS:
        raise ValueError(
            f"expected a domain, one of {', '.join(DOMAINS)}, got {name!r}: name one of these, "
            "or load a folder of class folders with load_folder"
        )
    split_classes(0, split)  # an unknown split is told before anything is prepared
    # TensorFlow Datasets is loaded here, when it is needed.
    from jxai.data import builders

    return _whole(name, str(builders.data_root())).restrict(split)


@functools.cache
def _whole(name: str, root: str) -> Source:
    from jxai.data import builders

    return builders.read(name, root)
