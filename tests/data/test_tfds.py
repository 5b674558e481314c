import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from made_data import encoded

from jxai import data
from jxai.data import loading
from jxai.data.decode import decode

SEEDS = {"train": range(6), "test": range(6, 10)}
FEATURES = {
    "image": tfds.features.Image(encoding_format="jpeg"),
    "label": tfds.features.ClassLabel(names=["ant", "bee"]),
    "id": tfds.features.Text(),
}


class _Quiet(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Looks nothing up on the network."""


class TinyInsects(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(FEATURES)
        return _Quiet(
            builder=self, features=features, supervised_keys=("image", "label"), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {split: self._generate_examples(seeds) for split, seeds in SEEDS.items()}

    def _generate_examples(self, seeds):
        for i, seed in enumerate(seeds):
            yield i, {"image": encoded(seed), "label": seed % 2, "id": str(seed)}


class TinyTexts(TinyInsects):
    def _info(self):
        features = tfds.features.FeaturesDict({"id": FEATURES["id"]})
        return _Quiet(builder=self, features=features)


class TinyGraphs(TinyInsects):
    def _split_generators(self, dl_manager):
        raise ImportError("this builder needs tensorflow")


@pytest.fixture
def _own_places(monkeypatch, tmp_path):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path / "jxai"))
    # TFDS reads its variable when it is loaded.
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", os.fspath(tmp_path / "tfds"))
    loading._whole.cache_clear()


@pytest.mark.usefixtures("_own_places")
def test_a_data_set_is_loaded_by_name(capfd):
    source = data.load("tfds:tiny_insects")
    assert capfd.readouterr() == ("", "")
    assert source.name == "tfds:tiny_insects" and source.class_names == ("ant", "bee")
    np.testing.assert_array_equal(source.labels, [0] * 5 + [1] * 5)
    # By class; in a class test comes before train, each in TFDS's order.
    for i, seed in enumerate([6, 8, 0, 2, 4, 7, 9, 1, 3, 5]):
        np.testing.assert_array_equal(source.image(i), decode(encoded(seed), name="expected"))
    assert data.load("tfds:tiny_insects", split="validation").class_names == ("bee",)
    assert "tensorflow" not in sys.modules


@pytest.mark.usefixtures("_own_places")
def test_what_is_no_classification_of_pictures_is_refused():
    with pytest.raises(
        ValueError, match="expected a data set with one image a picture, got tiny_texts with none"
    ):
        data.load("tfds:tiny_texts")
    with pytest.raises(ValueError, match="expected a data set of TensorFlow Datasets, got 'no_such_thing'"):
        data.load("tfds:no_such_thing")


@pytest.mark.usefixtures("_own_places")
def test_what_needs_tensorflow_is_told_with_the_command():
    said = (
        r"expected tiny_graphs prepared by TensorFlow Datasets as array_record, got ImportError: this builder needs "
        r"tensorflow.*: where TensorFlow is installed, run `tfds build tiny_graphs --file_format=array_record "
        r"--data_dir=DIR`, copy DIR here and set TFDS_DATA_DIR to it"
    )
    with pytest.raises(ValueError, match=said):
        data.load("tfds:tiny_graphs")
