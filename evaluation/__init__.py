"""From a model, or two, to a report."""
