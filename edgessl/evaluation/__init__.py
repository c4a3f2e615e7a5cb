"""What `edgessl evaluate` measures, part by part."""
