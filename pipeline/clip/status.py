"""Every way in which a clip can end, and all that can be odd about one that is kept."""

#: Why a clip is in no shard, or "ok". A closed list: anything else is a bug.
STATUSES = {
    "ok": "in a shard",
    "bad_decode": "the file opens as no video, or no picture comes out",
    "bad_name": "a name or folder says neither class nor sentence; in tables a cell that cannot be",
    "blank_frames": "a picture without content (GRID: the first intra picture is missing)",
    "crashed": "whatever process opens it dies: a crash in a decoder, or all the memory taken",
    "duplicate": "another file or row of the same clip was taken",
    "long": "more pictures than the corpus defines, longer than --max-seconds, or too large",
    "missing_audio": "the separate sound file is not there or cannot be read",
    "missing_frames": "picture files are not there",
    "no_audio": "the video has no sound track, or an empty one",
    "no_face": "the tracker found a face in less than half of its looks",
    "no_speaker": "neither folder nor name says the talker",
    "short": "fewer pictures than the corpus defines",
    "timeout": "it took longer than --clip-timeout allows, and its worker was stopped",
    "unreadable": "the file is listed but cannot be opened",
    "zero_length": "the row ends where it starts, or before",
}

#: What is odd about a clip that was kept. A closed list as well.
FLAGS = {
    "audio_misplaced": "the sound starts more than 40 ms from the first picture, and was put there",
    "audio_short": "more than 40 ms of silence was appended to the sound",
    "bad_alignment": "the alignment contradicts the name or itself; words from the name, no times",
    "boundary_clamped": "the annotated word is longer than the clip; its boundary was cut to it",
    "crlf": "the text file has Windows line ends",
    "damaged": "the decoder reported damage in at least one picture",
    "edge_padded": "the box leaves the picture somewhere; edge pixels were repeated",
    "encoding": "the index line is not UTF-8 and was read as GB18030",
    "face_gaps": "some looks found no face; positions were interpolated",
    "filled_frames": "missing pictures were replaced by their nearest neighbour",
    "large_picture": "the picture is larger than the corpus defines",
    "misfiled_alignment": "the alignment lay in another talker's folder",
    "no_alignment": "no alignment file: words from the name, times null",
    "no_audio": "the film has no sound track; the sample has no mel",
    "no_boundary": "no readable word boundary",
    "one_frame_short": "one picture fewer than the corpus defines",
    "resampled_rate": "another frame rate; the nearest picture was taken for each time",
    "separate_audio": "the sound comes from a separate file",
    "short_margin": "the word starts less than 0.2 s into the video",
    "short_pause": "the alignment holds short pauses (sp) between words",
    "silent": "no tenth of a second of the sound reaches -60 dBFS",
    "small_picture": "the picture is smaller than the corpus defines",
    "sync_corrected": "the sound was moved by the clip's lag in the table of --sync",
    "sync_far": "it was moved by more than a frame, 40 ms",
    "sync_unsure": "the table of --sync has no lag of this clip, or no sure one; kept as it is",
    "turned": "the pictures lay on their side and were turned upright by the face in them",
    "span_clamped": "the row ends behind the film's end; what there is was taken",
    "words_clamped": "words lie behind the clip's end; their times were cut to it, or are null",
}


class Refused(Exception):
    """A fault of the data that keeps one clip out: a status of `STATUSES` and what was found."""

    def __init__(self, status: str, error: str):
        assert status in STATUSES, status
        super().__init__(error)
        self.status = status
        self.error = error
