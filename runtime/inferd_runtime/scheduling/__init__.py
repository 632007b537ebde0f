"""Scheduling: jobs wait here, become batches, and run under one budget of cores.

A `Lane` is one model version's queue with its workers. This room knows jobs, sessions and plans; it knows nothing of
repositories, files or protocols. Its invariant: every job that a lane accepted is settled and delivered exactly once.
"""
