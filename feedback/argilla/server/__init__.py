"""The labelling server: its environment, its life, and (embedded/) what runs inside it."""
