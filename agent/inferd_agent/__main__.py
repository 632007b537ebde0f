"""`python -m inferd_agent` is the `inferd` command."""

from inferd_agent.cli import main

main()
