import sys
from pathlib import Path

# The fixtures of the commands' tests. Last in the list.
sys.path.append(str(Path(__file__).resolve().parents[1] / "cli"))

from small_runs import prepared, tiny, tiny_network, tiny_quickstart

__all__ = ["prepared", "tiny", "tiny_network", "tiny_quickstart"]
