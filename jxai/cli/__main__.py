"""`python -m jxai.cli` is `jxai`."""

from jxai.cli.main import main

if __name__ == "__main__":
    main()
