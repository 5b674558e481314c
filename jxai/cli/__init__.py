"""The command `jxai`, what a person runs without writing code; nothing else in `jxai` imports it."""

# A command is a module with `Options`, a dataclass, and `command()`, which reads them from the command line; `main`
# finds it by name. Functions here serve the commands and `experiments`, and may change with any version.
__all__: list[str] = []
