"""Commands that are no techniques: one a file, each with its ``COMMAND``."""
