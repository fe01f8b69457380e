"""The queue of jobs and the worker that serves it."""
