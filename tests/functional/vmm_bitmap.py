# SPDX-License-Identifier: Apache-2.0
"""The bitmap of written pages that a test shares with a VMM."""

import mmap

from vmm_client import memfd

PAGE = 4096


class Bitmap:
    """The shared bitmap of a machine of that many bytes."""

    def __init__(self, size):
        self.bytes = (size // PAGE + 63) // 64 * 8
        self.fd = memfd(size=self.bytes, seal=True)
        self.map = mmap.mmap(self.fd, self.bytes)

    def take(self):
        """The pages that are set, which are clear then."""
        pages = []
        for word in range(0, self.bytes, 8):
            bits = self.map[word:word + 8]
            if bits == bytes(8):
                continue
            self.map[word:word + 8] = bytes(8)
            value = int.from_bytes(bits, "little")
            pages += [word * 8 + i for i in range(64) if value >> i & 1]
        return pages
