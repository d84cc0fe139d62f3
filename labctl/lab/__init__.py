"""Carries a plan out: the lab's directory and journal, up, down, readiness, timing, captures.

Nothing is imported here, so that a verb pays only for what it uses.
"""
