"""Attacks on an unlearned model, one per file: `(backend, concept, config) -> Iterator[Step]`."""
