"""Training: state, the pmapped update, optimizers, checkpoints, metrics and the loop around them."""

from jxai.training.checkpoints import Checkpoints, Restored
from jxai.training.devices import PmappedStep, pmap_step, replicate, shard, unreplicate
from jxai.training.integrity import DamagedCheckpointError
from jxai.training.interruption import Interrupted
from jxai.training.log import MetricsWriter, read_metrics
from jxai.training.loop import FitResult, fit, fit_seeds
from jxai.training.losses import classification_loss, group
from jxai.training.meter import DivergedError
from jxai.training.optimizers import OptimizerConfig, make_optimizer, make_schedule
from jxai.training.seeds import SeedsStep, Stacked, seeds_step, train_seeds
from jxai.training.state import TrainState
from jxai.training.step import make_step
from jxai.training.stored import load_variables, read_config

__all__ = [
    "Checkpoints",
    "DamagedCheckpointError",
    "DivergedError",
    "FitResult",
    "Interrupted",
    "MetricsWriter",
    "OptimizerConfig",
    "PmappedStep",
    "Restored",
    "SeedsStep",
    "Stacked",
    "TrainState",
    "classification_loss",
    "fit",
    "fit_seeds",
    "group",
    "load_variables",
    "make_optimizer",
    "make_schedule",
    "make_step",
    "pmap_step",
    "read_config",
    "read_metrics",
    "replicate",
    "seeds_step",
    "shard",
    "train_seeds",
    "unreplicate",
]
