"""`python -m experiments.smooth_taylor`."""

from experiments.smooth_taylor.paper import Options, main
from jxai.cli.running import command_line

command_line.run(main, Options, explains=True)
