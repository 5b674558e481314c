"""Run by test_hosts.py, test_killed.py: `jxai explain`, `experiments.smooth_taylor`, of little by a small network.

python explaining.py --folder FOLDER [--methods METHOD ...] [--pictures N] [--no-table] [flags of hosts.Hosts]
"""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.append(
    str(Path(__file__).resolve().parents[2])
)  # the clone, of which `experiments` is not installed

from experiments.smooth_taylor import paper as smooth_taylor
from jxai.cli.explaining import explain
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.methods import Classifier
from jxai.cli.explaining.network import Network
from jxai.cli.explaining.picture_files import Picture
from jxai.cli.running import command_line
from jxai.cli.running.hosts import Hosts, HostsOption, together

RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(size=(3, 3, 3, 4)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Options:
    folder: Path
    methods: tuple[str, ...] = ("input-x-gradient", "smooth-taylor")
    pictures: int = 5
    table: bool = True
    hosts: HostsOption = Hosts()


def scores(x: jax.Array) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    maps = jax.lax.conv_general_dilated(x, KERNEL, (4, 4), "VALID", dimension_numbers=dimensions)
    return jax.nn.relu(maps).mean(axis=(1, 2)) + 1


def main(options: Options) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (options.pictures, 224, 224, 3), np.uint8)
    classifier = Classifier({}, lambda _, x: scores(x), lambda _, x: x, lambda _, x: x)
    network = Network("tiny", classifier, EFFICIENTNET_LITE0, ("a", "b", "c", "d"))
    explain.load_network = lambda options: network
    explain.read_pictures = lambda paths, **_: [Picture(str(i), one) for i, one in enumerate(pictures)]
    smooth_taylor.load_network = lambda name, weights: scores
    smooth_taylor.validation = lambda source, count, resampling: [
        Picture(f"{i}.png", lambda small=one[:46, :46]: small) for i, one in enumerate(pictures[:count])
    ]
    with together(options.hosts):
        # Five pictures in batches of two: the last batch is not full, and the last round has no work for all.
        explain.main(
            explain.Options(
                methods=options.methods,
                settings=explain.Settings(num_roots=3),
                batch=2,
                out=options.folder / "explain",
                progress=False,
            )
        )
        if options.table:
            smooth_taylor.main(
                smooth_taylor.Options(
                    num_regions=3,
                    num_draws=2,
                    adaptive_roots=2,
                    adaptive_draws=2,
                    sheet=1,
                    count=3,
                    out=options.folder / "table",
                    progress=False,
                )
            )


if __name__ == "__main__":
    command_line.run(main, Options)
