"""Tests of `jxai.guidance`: their registry of losses lies beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))
