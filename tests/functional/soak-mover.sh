#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 500 checkpoints of one bare guest at random moments, in all ways; it goes on from every second one.
. "$(dirname "$0")/bare-lib.sh"

PATH=$WISP_BUILD/src/mover:$PATH
python3 "$TOP/tests/functional/bare-mover.py" "$GUEST" "$TMP" 500 || fail "see above"
