"""The networks of the paper: no files, no configuration, no I/O.

Axes are spelt at the end of tensor names:

    B clips   T video frames   M mel columns, 4 T   S decoder steps   H, W picture   P pictures
    N slots   C source (video) features or channels   D target (audio) features   E fused features
    F mel bins   K classes
"""
