"""Domains of labelled pictures, and endless datasets of episodes and of batches drawn from them."""

from jxai.data.classification import classification_dataset
from jxai.data.domains import DOMAINS, Domain, load
from jxai.data.episodes import episode_dataset, episode_indices, episode_table
from jxai.data.folder import load_folder
from jxai.data.picture import centre_square, read_picture
from jxai.data.pipeline import iterate
from jxai.data.preprocess import denormalise, normalise
from jxai.data.source import SPLITS, Source, from_arrays, merge, split_classes

__all__ = [
    "DOMAINS",
    "SPLITS",
    "Domain",
    "Source",
    "centre_square",
    "classification_dataset",
    "denormalise",
    "episode_dataset",
    "episode_indices",
    "episode_table",
    "from_arrays",
    "iterate",
    "load",
    "load_folder",
    "merge",
    "normalise",
    "read_picture",
    "split_classes",
]
