"""Self-contained HTML pages: the preview of a dataset, predictions, and the report of the demo."""
