"""`python -m jxai.cli` is `jxai`."""

from jxai.cli.main import main

main()
