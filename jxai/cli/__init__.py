"""The command `jxai`: what a person runs without writing code.

A command is a module with `Options`, a dataclass, and `command()`, which reads them from the command line; `main`
finds it by name. Not part of the functional interface: nothing else in `jxai` imports it.
"""
