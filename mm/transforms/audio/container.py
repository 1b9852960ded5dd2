"""Whether a sound file holds all that its header promises: libsndfile reads one that is cut off as a shorter sound."""

import re
import struct
from typing import BinaryIO, NamedTuple

# A program that writes to a pipe does not know the length: ffmpeg leaves 0xffffffff, SoX 0x7ffff000, arecord
# 0x80000000 and GStreamer 0. A size from here to 0xffffffff that is beyond the file means "up to the end of the file".
STREAMED = 0x7FFF_F000
UNKNOWN = 0xFFFF_FFFF
MOST_CHUNKS = 10_000  # of a file; a damaged one could name millions of empty chunks
OGG_TAIL = 27 + 255 + 255 * 255  # bytes of the largest page
NIST_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d+)", re.MULTILINE)
W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # of the identifiers of W64 chunks, but for "riff"


class Missing(NamedTuple):
    """What a header promises, and what the file holds of it."""

    promised: int
    found: int
    unit: str = "bytes of samples"


class Container(NamedTuple):
    """What the header of a sound file says of its length."""

    missing: Missing | None = None  # None: nothing is missing, or the format does not tell
    unset_size: int | None = None  # where a WAV file has a length of 0 though samples follow, as GStreamer streams it


class Chunk(NamedTuple):
    """A part of a file."""

    name: bytes
    start: int  # of its content
    size: int  # bytes of its content by its header


def inspect(file: BinaryIO) -> Container:
    """Compare the length that the header of a sound file promises with the size of the file.

    WAV, RF64, W64, AIFF, 8SVX, CAF, AU, NIST SPHERE and Ogg files are understood. FLAC and MP3 files have to be
    decoded for it (see `waveform.read_channels`). A length that means "unknown" promises nothing, and neither does an
    Ogg file that ends with a whole page, as recordings of streams do.

    Args:
        file: Open for reading bytes; its position changes.

    Returns:
        What is missing, and where a length has to be filled in before the file can be read.
    """
    end = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"OggS":
        return Container(missing_of_ogg(file, end))
    if head[:7] == b"NIST_1A":
        return Container(missing_of_nist(file, end))
    if head[:4] in (b".snd", b"dns."):
        order = ">" if head[:1] == b"." else "<"
        start, size = struct.unpack(f"{order}II", head[4:12]) if len(head) >= 12 else (0, UNKNOWN)
        return Container(missing_of(Chunk(b"data", start, size), end))
    if head == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00":
        return Container(missing_of(w64_data(file, end), end))
    if head[:4] == b"caff":
        return Container(missing_of(caf_data(file), end))
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return chunked(file, end, "<" if head[:4] in (b"RIFF", b"RF64", b"BW64") else ">")
    return Container()


def missing_of(chunk: Chunk | None, end: int) -> Missing | None:
    """What is missing of a chunk in a file of `end` bytes."""
    if chunk is None or chunk.start + chunk.size <= end or STREAMED <= chunk.size <= UNKNOWN:
        return None
    return Missing(chunk.size, max(0, end - chunk.start))


def chunked(file: BinaryIO, end: int, order: str) -> Container:
    """Of WAV, RF64, AIFF and 8SVX files, whose chunks have a name and a size of 4 bytes each. order: of the bytes"""
    at, large = 12, None
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return Container()
        name, size = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        if name == b"ds64":  # the sizes of RF64, which takes 64 bits for them
            sizes = file.read(16)
            large = struct.unpack("<Q", sizes[8:])[0] if len(sizes) == 16 else None
        if name in (b"data", b"SSND", b"BODY"):
            if name == b"data" and size == 0 and not ends_here(file, at + 8, end, order):
                return Container(unset_size=at + 4)
            known = large if large is not None and size == UNKNOWN else size
            return Container(missing_of(Chunk(name, at + 8, known), end))
        at += 8 + size + size % 2
    return Container()


def ends_here(file: BinaryIO, at: int, end: int, order: str) -> bool:
    """Whether a file ends at a position, or goes on with another chunk: an identifier and a size that fits."""
    file.seek(at)
    head = file.read(8)
    if len(head) < 8:
        return True
    return head[:4].isascii() and struct.unpack(f"{order}I", head[4:])[0] <= end - at - 8


def w64_data(file: BinaryIO, end: int) -> Chunk | None:
    """The chunk of samples of a W64 file: identifiers of 16 bytes, sizes of 8 that count themselves, to 8 bytes."""
    at = 40
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        head = file.read(24)
        if len(head) < 24 or at >= end:
            return None
        size = struct.unpack("<Q", head[16:])[0]
        if head[:16] == b"data" + W64_TAIL:
            return Chunk(b"data", at + 24, max(0, size - 24))
        at += max(24, -(-size // 8) * 8)
    return None


def caf_data(file: BinaryIO) -> Chunk | None:
    """The chunk of samples of a CAF file: names of 4 bytes, sizes of 8, of which -1 means "unknown"."""
    at = 8
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        head = file.read(12)
        if len(head) < 12:
            return None
        size = struct.unpack(">q", head[4:])[0]
        if head[:4] == b"data":
            return Chunk(b"data", at + 12, UNKNOWN if size < 0 else size)
        at += 12 + max(0, size)
    return None


def missing_of_nist(file: BinaryIO, end: int) -> Missing | None:
    """Of a NIST SPHERE file, as those of TIMIT are: its header is text. Compressed ones do not tell."""
    file.seek(0)
    head = file.read(1024)
    fields = {name: int(value) for name, value in NIST_FIELD.findall(head)}
    start = head[8:16].strip()
    if len(fields) < 3 or b"embedded" in head or not start.isdigit():
        return None
    size = fields[b"sample_count"] * fields[b"channel_count"] * fields[b"sample_n_bytes"]
    return missing_of(Chunk(b"data", int(start), size), end)


def missing_of_ogg(file: BinaryIO, end: int) -> Missing | None:
    """Of the last page of an Ogg file."""
    file.seek(max(0, end - OGG_TAIL - 3))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return None
    page = tail[at:]
    table = page[26] if len(page) > 26 else 0
    header = 27 + table
    size = header + sum(page[27:header]) if len(page) >= header else header
    after = page[size:]
    if len(page) < size:
        return Missing(size, len(page), "bytes of its last page")
    if after and b"OggS".startswith(after):  # cut off within the mark of the next page
        return Missing(27, len(after), "bytes of its last page")
    return None
