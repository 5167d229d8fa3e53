"""Container engines: the seam in `base`, an engine per file, and `discovery` which knows them all."""
