"""The whole loop on a small fictional world, with a pocket model that is made on the spot."""
