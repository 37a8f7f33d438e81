"""From a run to a checkpoint or adapter that can be served, and its verification."""
