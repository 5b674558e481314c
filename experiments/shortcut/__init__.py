"""A planted shortcut, what a plain training makes of it, and what losses on explanations repair."""
