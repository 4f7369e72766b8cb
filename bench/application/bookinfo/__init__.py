"""Bookinfo, compatible with the original on the wire: `python -m bench.application.bookinfo SERVICE`.

Paths, status codes, JSON fields, page sizes, call order, timeouts, retries and forwarded headers are those of the
original sample application, so that a load script or a mesh policy for one also fits the other.
"""
