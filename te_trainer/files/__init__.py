"""Files that are written in one step, by one process, and read back with one sentence on what is wrong with them."""
