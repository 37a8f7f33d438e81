"""Self-contained HTML pages: the preview of a data set and the report of the demo."""
