"""Checkers of the exercises, a file for each notebook: they know the answers, so that no cell has to show one."""
