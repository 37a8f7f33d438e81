"""One thin handler per verb of the command line: `run(options) -> exit code`."""
