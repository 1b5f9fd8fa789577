"""`python -m tamis`, for where the `tamis` script is not on the path."""

from tamis.cli import main

main(prog_name="tamis")
