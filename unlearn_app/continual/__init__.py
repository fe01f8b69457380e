"""Sequences of requests to forget: the ledger, the sequence and its metrics."""
