"""Benchmarks: commands that print the tables which README and cards quote."""
