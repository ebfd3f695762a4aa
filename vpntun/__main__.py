"""`python -m vpntun`."""

from vpntun.cli import main

main()
