"""Files that leave the program: cluster maps, tables and pictures."""
