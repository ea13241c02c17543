"""Techniques, one a file; the registry finds them by the entry point ``convscope.techniques``."""
