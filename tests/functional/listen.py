# SPDX-License-Identifier: Apache-2.0
"""Counts frames with marks at all interfaces of a network namespace, until FILE is there.

    listen.py FILE VNI=MARK,...
The marks are in hexadecimal, and what is printed does not have them, since both may come by. It is JSON:
{"frames": all, "VNI plain": frames with its mark that are not VXLAN, "VNI carried": VXLAN of its number,
"VNI astray": of another one}, and how many were "dropped" as they came too fast.
"""

import json
import os
import socket
import struct
import sys

SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS, ETH_P_ALL = 33, 263, 6, 3
FILE = sys.argv[1]
MARKS = {int(vni): bytes.fromhex(mark) for vni, mark in (pair.split("=") for pair in sys.argv[2].split(","))}


def vxlan_number(frame):
    """Of a frame of VXLAN over IPv4, or None."""
    if len(frame) < 50 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    at = 14 + 4 * (frame[14] & 15)
    if struct.unpack(">H", frame[at + 2:at + 4])[0] != 4789:
        return None
    return struct.unpack(">I", frame[at + 12:at + 16])[0] >> 8


def main():
    counts = {"frames": 0}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as s:
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        s.settimeout(0.2)
        print("ready", file=sys.stderr, flush=True)
        while not os.path.exists(FILE):
            try:
                frame = s.recv(65536)
            except socket.timeout:
                continue
            counts["frames"] += 1
            for vni, mark in MARKS.items():
                if mark in frame:
                    number = vxlan_number(frame)
                    what = f"{vni} " + ("plain" if number is None else "carried" if number == vni else "astray")
                    counts[what] = counts.get(what, 0) + 1
        counts["dropped"] = struct.unpack("II", s.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
    print(json.dumps(counts))


main()
