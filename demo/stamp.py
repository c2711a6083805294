#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts before each line how many seconds after BEGAN it came. usage: stamp.py BEGAN"""

import sys
import time

for line in sys.stdin:
    print(f"{time.time() - float(sys.argv[1]):.2f}\t{line}", end="", flush=True)
