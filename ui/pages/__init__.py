"""The app's pages, one file each; `build(page, workspace)` lays one out in its gr.Blocks."""
