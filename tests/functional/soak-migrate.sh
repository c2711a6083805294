#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 200 migrations of one bare guest in all ways, and 200 with a mover that is killed.
. "$(dirname "$0")/bare-lib.sh"

PATH=$WISP_BUILD/src/mover:$PATH
python3 "$TOP/tests/functional/bare-migrate.py" "$GUEST" "$TMP" 200 || fail "see above"
