"""One module for each group of commands: their grammar, their function, their rows."""
