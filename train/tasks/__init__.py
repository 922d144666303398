"""A task is one file here: the model, how a batch reaches it, its losses, its score and its record.

`find_task` knows every module of this folder that has a `TASK`; nothing else asks which task it is.
"""
