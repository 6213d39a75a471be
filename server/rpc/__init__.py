"""The Open Inference Protocol over gRPC: thin methods over `server.oip`, in each worker's own event loop.

gRPC must not be imported before a process is forked, so whoever forks imports nothing of this package.
"""
