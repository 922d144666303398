"""Any video in, words or speech out: what `avb infer` does."""
