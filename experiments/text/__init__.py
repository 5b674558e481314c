"""What is measured on language models."""
