import pytest

from jxai import data
from jxai.data.loading import list_domain

FORMS = (
    "miniImageNet, folders",
    "miniImageNet, tables",
    "CUB",
    "Cars",
    "Places, standard",
    "Places, 256",
    "Places, large",
    "Plantae",
)
PACKED = FORMS[2:]


@pytest.mark.parametrize(
    ("form", "packed"), [*((form, False) for form in FORMS), *((form, True) for form in PACKED)]
)
def test_a_data_set_is_listed_from_its_true_layout(made, tmp_path, form, packed):
    small = made(form)
    listing = list_domain(small.domain, small.write(tmp_path / "place", packed=packed))
    assert listing.classes == tuple((name, tuple(pictures)) for name, pictures in small.classes.items())
    read = dict(listing.files.read(listing.names))
    assert read == {name: small.files[name] for name in listing.names}


def test_mini_imagenet_has_its_own_splits(made, tmp_path):
    for form in FORMS[:2]:
        small = made(form)
        listing = list_domain(small.domain, small.write(tmp_path / form))
        assert listing.class_names == ["n01", "n02", "n03", "n04", "n05", "n06"]
        assert listing.class_splits == ["base", "novel", "base", "validation", "base", "novel"]


def test_the_registry_has_the_papers_numbers():
    # METHODS.md, section 2, "Data"; CUB's and Cars' pictures are their authors' numbers.
    assert {
        name: (domain.num_classes, domain.num_pictures) for name, domain in data.PAPER_DOMAINS.items()
    } == {
        "miniImageNet": ((64, 16, 20), 60_000),
        "CUB": ((100, 50, 50), 11_788),
        "Cars": ((98, 49, 49), 8_144),
        "Places": ((183, 91, 91), 73_000),
        "Plantae": ((100, 50, 50), None),
    }
    assert data.PAPER_DOMAINS["Places"].per_class == 200
    assert data.PAPER_DOMAINS["Plantae"].per_class == 600 and data.PAPER_DOMAINS["Plantae"].largest


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_there_is_told_with_what_it_needs(made, tmp_path, form):
    small = made(form)
    with pytest.raises(ValueError, match=rf"in {tmp_path}/place, got none of them: put there "):
        list_domain(small.domain, tmp_path / "place")


@pytest.mark.parametrize(
    ("form", "missing", "packed"),
    [
        ("miniImageNet, folders", "val", False),
        ("miniImageNet, tables", "test.csv", False),
        ("CUB", "CUB_200_2011/image_class_labels.txt", False),
        ("CUB", "CUB_200_2011/image_class_labels.txt", True),
        ("Cars", "devkit/cars_train_annos.mat", False),
        ("Cars", "devkit/cars_train_annos.mat", True),
    ],
)
def test_a_missing_table_is_named(made, tmp_path, form, missing, packed):
    small = made(form)
    small.files = {name: content for name, content in small.files.items() if not name.startswith(missing)}
    with pytest.raises(ValueError, match=rf"expected in {tmp_path}.* also {missing}: get the data set again"):
        list_domain(small.domain, small.write(tmp_path, packed=packed))


def test_a_missing_json_is_named(made, tmp_path):
    small = made("Plantae")
    del small.files["train2018.json"]
    with pytest.raises(
        ValueError, match=r"expected train2018\.json or train2018\.json\.tar\.gz in .*got none"
    ):
        list_domain(small.domain, small.write(tmp_path))


@pytest.mark.parametrize("packed", [False, True])
def test_missing_pictures_are_named(made, tmp_path, packed):
    small = made("CUB")
    gone = list(small.classes.values())[1][:2]
    for name in gone:
        del small.files[name]
    listing = list_domain(small.domain, small.write(tmp_path, packed=packed))
    with pytest.raises(
        ValueError, match=rf"expected in .* also {gone[0]}, {gone[1]}: get the data set again"
    ):
        list(listing.files.read(listing.names))


def test_a_wrong_number_of_classes_is_an_error(made, tmp_path):
    small = made("CUB")
    small.files = {name: content for name, content in small.files.items() if "004" not in name}
    for table, word in (("classes", "004"), ("images", "004"), ("image_class_labels", " 4\n")):
        path = f"CUB_200_2011/{table}.txt"
        lines = small.files[path].decode().splitlines(keepends=True)
        small.files[path] = "".join(line for line in lines if word not in line).encode()
    said = r"expected 4 classes \(2 base, 1 validation, 1 novel\) for CUB, got 3 .*1 validation, 0 novel\)"
    with pytest.raises(ValueError, match=said):
        list_domain(small.domain, small.write(tmp_path))


def test_a_wrong_number_of_pictures_is_an_error_that_names_the_smallest_class(made, tmp_path):
    small = made("Places, standard")
    for name in small.classes["bar"]:
        del small.files[name]
    with pytest.raises(
        ValueError, match=r"expected 12 pictures for Places, got 11 in .* \(2 of class 'bar'\)"
    ):
        list_domain(small.domain, small.write(tmp_path))


@pytest.mark.parametrize(
    ("form", "table", "content"),
    [
        ("CUB", "CUB_200_2011/image_class_labels.txt", b"1 7\n"),
        ("CUB", "CUB_200_2011/classes.txt", b"1\n"),
        ("Cars", "devkit/cars_meta.mat", b"no matlab"),
        ("Cars", "devkit/cars_train_annos.mat", b""),
        ("Plantae", "train2018.json", b"{"),
        ("Plantae", "train2018.json", b"{}"),
        ("miniImageNet, tables", "val.csv", b"name,class\na.jpg,n04\n"),
    ],
)
def test_a_damaged_table_is_named(made, tmp_path, form, table, content):
    small = made(form)
    small.files[table] = content
    with pytest.raises(
        ValueError, match=rf"expected .*{table} as its authors made it, got .*: get the data set"
    ):
        list_domain(small.domain, small.write(tmp_path))


@pytest.mark.parametrize("packed", ["CUB_200_2011.tgz", "places365standard_easyformat.tar"])
def test_an_archive_cut_short_is_named(made, tmp_path, packed):
    small = made("CUB" if packed.startswith("CUB") else "Places, standard")
    archive = small.write(tmp_path, packed=True) / packed
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2 + 700])  # within a file
    with pytest.raises(
        ValueError, match=rf"expected a tar archive, got .*{packed}, which is damaged or cut short"
    ):
        listing = list_domain(small.domain, tmp_path)
        list(listing.files.read(listing.names))


def test_hidden_files_are_left_out(made, tmp_path):
    small = made("Places, 256")
    small.files["data_256/a/airfield/._00000001.jpg"] = b"a Macintosh's"
    small.files["data_256/.DS_Store"] = b"a Macintosh's"
    for packed in (False, True):
        listing = list_domain(small.domain, small.write(tmp_path / str(packed), packed=packed))
        assert listing.class_names == list(small.classes) and len(listing.names) == 12


def test_a_class_in_two_splits_is_named(made, tmp_path):
    small = made("miniImageNet, folders")
    for name in small.classes["n01"]:
        small.files[name.replace("base", "val")] = small.files[name]
    with pytest.raises(
        ValueError, match="class names that differ, got 'n01' more than once in 'miniImageNet'"
    ):
        list_domain(small.domain, small.write(tmp_path))
