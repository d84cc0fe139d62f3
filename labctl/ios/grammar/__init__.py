"""The grammar: commands are declared once, and read, shortened, completed, explained and written from that."""
