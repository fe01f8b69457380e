"""The one training loop, its data, and the forgetting of one concept."""
