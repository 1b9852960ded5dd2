"""Entry point of `python -m mm`, which equals the command `mm`."""

from mm.cli import main

if __name__ == "__main__":  # not on a mere import
    main()
