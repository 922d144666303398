"""`avb ui`: a page on this machine to try a model on; one child process for each film."""
