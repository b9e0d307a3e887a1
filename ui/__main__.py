"""`python -m ui`, where the installed command is not on the path."""

from ui.cli import main

main()
