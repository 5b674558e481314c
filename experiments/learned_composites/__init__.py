"""Composites whose numbers are learned on an objective of faithfulness, against the literature's."""
