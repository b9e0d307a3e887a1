"""The command line, the app and the demo: thin, without logic of their own."""
