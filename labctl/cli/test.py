"""`labctl test`."""
