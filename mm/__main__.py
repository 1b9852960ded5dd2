"""`python -m mm` is `mm`."""

from mm.cli import main

if __name__ == "__main__":  # and not where something merely imports it
    main()
