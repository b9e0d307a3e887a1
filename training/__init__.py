"""From a dataset version to an adapter."""
