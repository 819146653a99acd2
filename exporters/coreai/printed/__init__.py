"""The parts of a Core AI program as it is printed. No Core AI, no torch."""
