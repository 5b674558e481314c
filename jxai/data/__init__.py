"""Domains of labeled pictures, and endless datasets of episodes and of batches drawn from them."""

from jxai.data.classification import classification_dataset
from jxai.data.device_augment import augment_on_device
from jxai.data.domains import DOMAINS, PAPER_DOMAINS, Domain, PaperDomain
from jxai.data.episodes import episode_dataset, episode_pairs_dataset
from jxai.data.folder import load_folder
from jxai.data.loading import load, prepare
from jxai.data.look_up import look_up
from jxai.data.merging import merge
from jxai.data.picture import center_square, read_picture
from jxai.data.pipeline import iterate
from jxai.data.prepared import Prepared
from jxai.data.preprocess import denormalize, normalize
from jxai.data.sampler import episode_indices, episode_table
from jxai.data.source import Source, from_arrays
from jxai.data.splits import SPLITS, split_classes

__all__ = [
    "DOMAINS",
    "PAPER_DOMAINS",
    "SPLITS",
    "Domain",
    "PaperDomain",
    "Prepared",
    "Source",
    "augment_on_device",
    "center_square",
    "classification_dataset",
    "denormalize",
    "episode_dataset",
    "episode_indices",
    "episode_pairs_dataset",
    "episode_table",
    "from_arrays",
    "iterate",
    "load",
    "load_folder",
    "look_up",
    "merge",
    "normalize",
    "prepare",
    "read_picture",
    "split_classes",
]
