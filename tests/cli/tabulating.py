"""Run by test_hosts.py: `jxai reproduce` of the tiny table, two episodes a step, to the bit the same on two devices.

python tabulating.py --folder FOLDER [--systems SYSTEM ...] [flags of hosts.Hosts]

Each process has a folder of results of its own, as on a pod whose hosts share nothing but the runs.
"""

import dataclasses
from pathlib import Path

from tiny_table import tiny

from jxai.cli.fewshot import reproduce
from jxai.cli.fewshot.configs import TABLES, Table
from jxai.cli.running import command_line
from jxai.cli.running.hosts import Hosts, HostsOption


@dataclasses.dataclass(frozen=True)
class Options:
    folder: Path
    systems: tuple[str, ...] = ()
    hosts: HostsOption = Hosts()


def paired() -> Table:
    table = tiny()
    systems = {
        name: dataclasses.replace(config, episodes_per_step=2, deterministic=True)
        for name, config in table.systems.items()
    }
    return dataclasses.replace(table, systems=systems)


def main(options: Options) -> None:
    TABLES["tiny"] = paired
    reproduce.main(
        reproduce.Options(
            "tiny",
            systems=options.systems,
            runs=options.folder / "runs",
            results=options.folder / f"results-{options.hosts.process_id or 0}",
            progress=False,
            hosts=options.hosts,
        )
    )


if __name__ == "__main__":
    command_line.run(main, Options)
