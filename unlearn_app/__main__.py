"""The command line: `python -m unlearn_app --help`."""

from .cli.main import main

if __name__ == "__main__":
    main()
