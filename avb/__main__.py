"""`python -m avb` and the `avb` command."""

from avb.tools.cli import main

if __name__ == "__main__":
    main()
