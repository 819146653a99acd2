"""`python -m morvit_deploy`: the command line."""

from morvit_deploy.cli import main

main()
