"""Metrics of explanations against what is known: planted triggers, and networks tuned on masks."""
