"""People label in the browser: an Argilla server of the workspace's own, or one that runs already."""
