"""Lightning modules, callbacks and the one composition root `run.train`."""
