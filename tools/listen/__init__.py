"""The listening test of the paper's Table 3: a page to rate speech on, and what the ratings say.

How it is done follows `evaluation.md` section 5: blind, block-random, with real speech, a hidden
ceiling and a floor among the systems, repeats to know a rater by, and intervals over raters and
clips.
"""
