"""What is drawn and what is asked of every function is the module `strategies` beside this file."""

import sys
from pathlib import Path

# Last in the list, as `tests/cli/conftest.py` has it.
sys.path.append(str(Path(__file__).resolve().parent))
