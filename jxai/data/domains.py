"""The registry of domains."""

import dataclasses
import types
from collections.abc import Callable, Mapping
from pathlib import Path

from jxai.data import layouts
from jxai.data.listing import Listing


@dataclasses.dataclass(frozen=True)
class Domain:
    """What is known of a domain before it is loaded.

    Attributes:
        name: what `load` calls it.
        description: what its pictures show.
        license: where they come from and under which terms.
        settings: (shot, queries a class) of the two evaluations: 1-shot, and 5-shot or what replaces it.
        settings_note: how those settings differ from 1-shot and 5-shot with 15 queries, for tables; or empty.
    """

    name: str
    description: str
    license: str
    settings: tuple[tuple[int, int], tuple[int, int]] = ((1, 15), (5, 15))
    settings_note: str = ""


DOMAINS: Mapping[str, Domain] = types.MappingProxyType(
    {
        domain.name: domain
        for domain in (
            Domain(
                name="latin",
                description="A-Z, 2-9 and thirteen signs in wild display typefaces",
                license="Debian fonts-aenigma: free to redistribute and change, attribution to Brian Kent",
            ),
            Domain(
                name="hebrew",
                description="Hebrew letters",
                license="Debian culmus, GPL-2 with font exception",
            ),
            Domain(
                name="thai",
                description="Thai letters and digits",
                license="Debian fonts-tlwg-*, GPL-2+ with font exception",
            ),
            Domain(
                name="arabic",
                description="isolated Arabic letters",
                license="Debian fonts-arabeyes, GPL-2",
            ),
            Domain(
                name="georgian",
                description="Georgian letters",
                license="Debian fonts-bpg-georgian, GPL-2",
            ),
            Domain(
                name="fashion",
                description="photographs of clothes, Fashion-MNIST test images padded to 32",
                license="MIT, Zalando",
            ),
            Domain(
                name="pictograms",
                description="animals, plants, food and drink in five drawing styles",
                license="Noto Emoji Apache-2.0, Twemoji CC-BY 4.0, Fluent Emoji MIT, OpenMoji CC-BY-SA 4.0",
                settings=((1, 4), (4, 1)),
                settings_note="five pictures a class: 1-shot with 4 queries, 4-shot with 1 query",
            ),
        )
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperDomain(Domain):
    """A data set of the papers, which somebody has to put in place.

    Attributes:
        layout: lists the pictures in a directory; its second argument is what errors say of what belongs there.
        parts: all that `layout` reads: a file or folder in the directory, and the archive that is read where that is
            missing, or "".
        needs: what somebody has to get, and from where.
        num_classes: classes of the splits base, validation and novel.
        num_pictures: pictures in all, before any is left out as corrupt; None where nothing says it.
        largest: whether these are the largest classes of many, of equal ones the first by name.
        per_class: of each class so many are taken, the first ones in sorted order; None for all.
    """

    layout: Callable[[Path, str], Listing]
    parts: Mapping[str, str]
    needs: str
    num_classes: tuple[int, int, int]
    num_pictures: int | None
    largest: bool = False
    per_class: int | None = None


PAPER_DOMAINS: Mapping[str, PaperDomain] = types.MappingProxyType(
    {
        domain.name: domain
        for domain in (
            PaperDomain(
                name="miniImageNet",
                description="a hundred classes of ImageNet, 600 photographs each",
                license="ImageNet's terms: research and teaching, not commercial",
                layout=layouts.mini_imagenet,
                parts=layouts.MINI_IMAGENET,
                needs="put there the folders base, val and novel with a folder a class, or the folder images with "
                "train.csv, val.csv and test.csv (columns filename and label)",
                num_classes=(64, 16, 20),
                num_pictures=60_000,
            ),
            PaperDomain(
                name="CUB",
                description="two hundred species of birds, Caltech-UCSD Birds 200-2011",
                license="research and teaching, not commercial; the photographs are Flickr's users'",
                layout=layouts.cub,
                parts=layouts.CUB,
                needs="put there CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158, or the folder "
                "CUB_200_2011 that it holds",
                num_classes=(100, 50, 50),
                num_pictures=11_788,
            ),
            PaperDomain(
                name="Cars",
                description="196 models of cars, Stanford Cars' training pictures",
                license="research, not commercial",
                layout=layouts.cars,
                parts=layouts.CARS,
                needs="put there cars_train.tgz and car_devkit.tgz, or the folders cars_train and devkit that they "
                "hold; Stanford's page is gone, so take a mirror or your own copy",
                num_classes=(98, 49, 49),
                num_pictures=8_144,
            ),
            PaperDomain(
                name="Places",
                description="365 kinds of scenes, Places365-Standard, 200 training pictures of each",
                license="research and teaching, not commercial; the photographs are their owners'",
                layout=layouts.places,
                parts=layouts.PLACES,
                needs="put there one of places365standard_easyformat.tar, train_256_places365standard.tar and "
                "train_large_places365standard.tar from http://places2.csail.mit.edu, or the folder that it holds",
                num_classes=(183, 91, 91),
                num_pictures=365 * 200,
                per_class=200,
            ),
            PaperDomain(
                name="Plantae",
                description="the 200 largest classes of plants of iNaturalist 2018, at most 600 pictures each",
                license="research, not commercial; each photograph has its own license",
                layout=layouts.plantae,
                parts=layouts.PLANTAE,
                needs="put there train2018.json.tar.gz and train_val2018.tar.gz from "
                "https://github.com/visipedia/inat_comp/tree/master/2018, or train2018.json and the folder "
                "train_val2018 that they hold",
                num_classes=(100, 50, 50),
                num_pictures=None,
                largest=True,
                per_class=600,
            ),
        )
    }
)
