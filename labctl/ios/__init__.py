"""The room of the IOS language: command grammar, show output, console. Empty yet."""
