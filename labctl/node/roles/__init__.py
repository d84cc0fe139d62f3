"""The roles of a node: sans-IO parties driven on real sockets and the lab's clock."""
