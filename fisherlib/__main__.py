"""`python -m fisherlib` is the command `fisherlib`."""

from fisherlib.cli import main

if __name__ == "__main__":
    main()
