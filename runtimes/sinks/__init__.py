"""Where vectors go: files, an index, standard output."""
