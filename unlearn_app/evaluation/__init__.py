"""Pictures, judges, statistics and the verdict."""
