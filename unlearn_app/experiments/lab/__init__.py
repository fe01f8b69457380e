"""The lab: whether attacks find concealed concepts, verdicts are true, and methods resist."""
