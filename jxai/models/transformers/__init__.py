"""Transformers by family: language models, sentence encoders, vision transformers.

They are Linen modules, as the rest of `jxai.models` is: `nn.scan` compiles one layer for all of a model's, and paths
of modules are the names by which `lrp` watches, starts and masks.
"""
