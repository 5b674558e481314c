import sys
from pathlib import Path

# What the tests of this folder share are the modules beside this file that are no tests. Last in the list.
sys.path.append(str(Path(__file__).resolve().parent))

from small_runs import prepared, tiny, tiny_network, tiny_quickstart

__all__ = ["prepared", "tiny", "tiny_network", "tiny_quickstart"]
