"""In which order a rater hears the clips: blocks in which every system comes once."""

import numpy as np

#: A clip of the test: (system, sentence), both as numbers.
Clip = tuple[int, int]
REPEATS = 4


def rating_order(systems: int, sentences: int, seed: int) -> tuple[list[Clip], list[Clip]]:
    """The order of one rater, and the clips that come again after it.

    In each of as many blocks as sentences, every system comes once, each with another sentence, in
    random order; over all blocks every system says every sentence once. No two neighbours have the
    same sentence. The repeats are of different sentences, and of different systems as far as there
    are.
    """
    if systems < 2 or sentences < systems or sentences <= REPEATS:
        raise ValueError(
            f"{systems} systems and {sentences} sentences; there must be 2 systems, no fewer"
            f" sentences than systems, and more than {REPEATS}"
        )
    rng = np.random.default_rng(seed)
    names = rng.permutation(sentences).tolist()
    offsets = rng.permutation(sentences)[:systems].tolist()
    order: list[Clip] = []
    for block in range(sentences):
        clips = [(i, names[(block + offset) % sentences]) for i, offset in enumerate(offsets)]
        clips = [clips[i] for i in rng.permutation(systems)]
        if order and clips[0][1] == order[-1][1]:
            other = int(rng.integers(1, systems))
            clips[0], clips[other] = clips[other], clips[0]
        order += clips
    last = order[-1][1]
    others = [i for i in rng.permutation(sentences).tolist() if i != last][:REPEATS]
    who: list[int] = []
    while len(who) < REPEATS:
        who += rng.permutation(systems).tolist()
    return order, list(zip(who[:REPEATS], others, strict=True))
