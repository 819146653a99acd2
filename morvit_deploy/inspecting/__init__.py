"""Looking into a checkpoint: its parts and costs, where its tokens go deep, and whether its routing is alive."""
