"""Planning: choose how a model version is run on this machine.

Knows engines and the machine, never queues or sockets.
"""
