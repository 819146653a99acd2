"""What every part of the agent uses: faults, JSON lines, the recipe, running graphs, child processes."""
