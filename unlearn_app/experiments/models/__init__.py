"""What works with which family of models, and how much memory each takes."""
