"""The networks of the paper: no files, no configuration, no I/O.

memory.py       equations 1 to 8: the bridging memory, its losses, recall and fusion
whitening.py    audio features without correlation, before the memory sees them
frontends.py    pictures and mels to one feature a video frame, for lip reading and speech
backends.py     features to words: bidirectional GRU, multi-scale temporal convolutions
lip.py          the lip reader: front ends, memory, back end
encoder.py      the speech model's 3D video encoder
tacotron.py     features to mels, two columns a step, attending to the frames
synchronous.py  features to mels, all columns at once: four to a frame
speech.py       the speech reconstructor: encoder, memory, decoder, and 40-frame windows
masks.py        clips of different lengths in one batch
published.py    the name map to the authors' published lip-reading checkpoints
layout.py       weights with channels last
precision.py    where numbers stay in float32

Axes are spelt at the end of tensor names:

    B clips   T video frames   M mel columns, 4 T   S decoder steps   H, W picture   P pictures
    N slots   C source (video) features or channels   D target (audio) features   E fused features
    F mel bins   K classes
"""
