"""Files that are written in one step and read back with one sentence on what is wrong with them."""
