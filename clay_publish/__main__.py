"""`python -m clay_publish`."""

from clay_publish.cli.app import main

main()
