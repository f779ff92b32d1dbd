"""Zstandard archives as a stream of bytes; unlike the library's own reader it tells a cut archive from a whole one."""

from typing import BinaryIO

import zstandard

_LARGEST_WINDOW = 1 << 31
_READ_BYTES = 1 << 17


class ZstFile:
    """Reads an archive of one or more frames; `read1` raises EOFError where it is cut short or damaged."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._ready, self._frame = raw, b"", None

    def read1(self, num_bytes: int) -> bytes:
        """Up to `num_bytes` unpacked bytes; none at the end."""
        while not self._ready:
            packed = self._raw.read(_READ_BYTES)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the zstd data end before their end-of-frame mark")
                return b""
            self._ready = self._unpack(packed)
        given, self._ready = self._ready[:num_bytes], self._ready[num_bytes:]
        return given

    def _unpack(self, packed: bytes) -> bytes:
        unpacked = []
        try:
            while packed:
                if self._frame is None:
                    self._frame = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
                unpacked.append(self._frame.decompress(packed))
                packed = b""
                if self._frame.eof:
                    packed, self._frame = self._frame.unused_data, None
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        return b"".join(unpacked)
