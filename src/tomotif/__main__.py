"""`python -m tomotif` is `tomotif`."""

from tomotif.cli.app import main

main()
