"""Learning: the loop, batches, the optimiser, the processes that learn as one."""
