"""``python -m convscope``: the command line, where the command itself is not on the path."""

from convscope.cli import main

if __name__ == "__main__":
    main()
