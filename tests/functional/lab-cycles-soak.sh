#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Twenty times up and down. Alone: tests/run lab-cycles-soak
WISP_LAB_ROUNDS=20 exec "$(dirname "$0")/lab-cycles.sh"
