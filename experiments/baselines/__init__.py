"""Baselines that few-shot papers compare with, plain and guided, on the embedded benchmark."""
