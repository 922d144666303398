"""Runs and their evaluation records as one page, and the page's figures as files."""
