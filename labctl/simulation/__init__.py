"""The room of the simulator: virtual clock and network that run many sans-IO parties in one process. Empty yet."""
