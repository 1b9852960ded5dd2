"""`python -m mm` is `mm`."""

from mm.cli import main

main()
