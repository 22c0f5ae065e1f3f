"""Callbacks for other people's training loops; each is imported by its own name.

Nothing here is imported by vgaudit itself, and each module needs only the library
after which it is called.
"""
