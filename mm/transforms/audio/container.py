"""Detection of truncated audio files, which libsndfile would read as shorter clips without an error."""

import re
import struct
from typing import BinaryIO, NamedTuple

# A program that writes to a pipe does not know the length: ffmpeg writes 0xffffffff, SoX 0x7ffff000, arecord
# 0x80000000 and GStreamer 0. A size in STREAMED..UNKNOWN that exceeds the file means "up to the end of the file".
STREAMED = 0x7FFF_F000
UNKNOWN = 0xFFFF_FFFF
MOST_CHUNKS = 10_000  # maximum per file; a damaged file could have millions of empty chunks
OGG_TAIL = 27 + 255 + 255 * 255  # bytes of the largest page
NIST_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d+)", re.MULTILINE)
W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"  # ends the identifiers of W64 chunks but "riff"


class Missing(NamedTuple):
    """Length that the header of a file declares, and length that the file contains."""

    promised: int
    found: int
    unit: str = "bytes of samples"


class Container(NamedTuple):
    """Information in the header of an audio file about its length."""

    missing: Missing | None = None  # None: the file is complete, or the format has no length
    unset_size: int | None = None  # position of a length of 0 in a WAV file with samples, as written by GStreamer


class Chunk(NamedTuple):
    """A chunk of an audio file."""

    name: bytes
    start: int  # position of its content in the file
    size: int  # size of its content in bytes, by its header


def inspect(file: BinaryIO) -> Container:
    """Compare the length in the header of an audio file with the size of the file.

    Supported formats are WAV, RF64, W64, AIFF, 8SVX, CAF, AU, NIST SPHERE and Ogg. FLAC and MP3 files can be checked
    only while they are decoded (see `waveform.read_channels`). A file is not considered truncated if its header says
    that the length is unknown, or if it is an Ogg file that ends with a complete page, as recordings of streams do.

    Args:
        file: File opened for reading bytes; its position changes.

    Returns:
        The missing length, if any, and the position of a length of 0 that must be filled in before the file can be
        read.
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
    """Return the declared and the available length of a chunk, or None if the chunk is complete.

    Args:
        chunk: The chunk of samples; None: it was not found.
        end: Size of the file in bytes.
    """
    if chunk is None or chunk.start + chunk.size <= end or STREAMED <= chunk.size <= UNKNOWN:
        return None
    return Missing(chunk.size, max(0, end - chunk.start))


def chunked(file: BinaryIO, end: int, order: str) -> Container:
    """Inspect a WAV, RF64, AIFF or 8SVX file, whose chunks have a name and a size of 4 bytes each.

    Args:
        file: The file.
        end: Size of the file in bytes.
        order: Byte order of the sizes in the notation of `struct`: "<" or ">".
    """
    at, large = 12, None
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return Container()
        name, size = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        if name == b"ds64":  # the sizes of RF64, which have 64 bits
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
    """Return whether a file ends at a position, and does not continue with another chunk.

    A chunk is recognised by an ASCII identifier and a size that fits into the rest of the file.

    Args:
        file: The file.
        at: The position.
        end: Size of the file in bytes.
        order: Byte order of the sizes in the notation of `struct`: "<" or ">".
    """
    file.seek(at)
    head = file.read(8)
    if len(head) < 8:
        return True
    return head[:4].isascii() and struct.unpack(f"{order}I", head[4:])[0] <= end - at - 8


def w64_data(file: BinaryIO, end: int) -> Chunk | None:
    """Return the chunk of samples of a W64 file, or None if it is not found.

    Chunks have an identifier of 16 bytes and a size of 8 bytes, which includes the header of the chunk, and are aligned
    to 8 bytes.
    """
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
    """Return the chunk of samples of a CAF file, or None if it is not found.

    Chunks have a name of 4 bytes and a size of 8 bytes; a size of -1 means that it is unknown.
    """
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
    """Return the missing length of a NIST SPHERE file, such as those of TIMIT, whose header is text.

    It is None if the file is complete, and for compressed files, which can't be checked.
    """
    file.seek(0)
    head = file.read(1024)
    fields = {name: int(value) for name, value in NIST_FIELD.findall(head)}
    start = head[8:16].strip()
    if len(fields) < 3 or b"embedded" in head or not start.isdigit():
        return None
    size = fields[b"sample_count"] * fields[b"channel_count"] * fields[b"sample_n_bytes"]
    return missing_of(Chunk(b"data", int(start), size), end)


def missing_of_ogg(file: BinaryIO, end: int) -> Missing | None:
    """Return the missing length of the last page of an Ogg file, or None if the page is complete."""
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
    if after and b"OggS".startswith(after):  # truncated within the identifier of the next page
        return Missing(27, len(after), "bytes of its last page")
    return None
