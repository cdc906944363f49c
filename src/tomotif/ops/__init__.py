"""Pure functions from arrays to arrays: the mathematics. They read no file and know no noun's place on disk."""
