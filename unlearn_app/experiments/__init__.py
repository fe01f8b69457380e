"""Benchmarks: commands that print the tables which cards and the page of all results quote."""
