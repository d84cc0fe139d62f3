"""The agent of a node: an asyncio program on one door connection, and the roles that it plays."""
