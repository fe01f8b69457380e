"""Requests to forget that keep coming: the ledger, the sequence, and how the model stands."""
