"""`python -m clay_publish`."""

from clay_publish.cli import main

main()
