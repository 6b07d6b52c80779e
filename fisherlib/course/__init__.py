"""The course's own machinery: what the notebooks use and a pipeline does not. Nothing outside imports it."""
