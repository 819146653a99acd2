"""The machine the agent runs on: processor, memory, files of the system."""
