"""The room of cooperative key servers (COOP): election, announcements, synchronisation. Sans-IO. Empty yet."""
