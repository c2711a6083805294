#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp-part with Linux guests: their agents are ready, know all names, and run programs through it;
# a volume is mounted, a share is there again after a cut. Alone: tests/run vm-part
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"
WISP_CACHE=$TMP/cache
export WISP_CACHE
mkdir -p "$WISP_RUN" "$WISP_CACHE" "$TMP/shared"
echo shared >"$TMP/shared/file"
timeout 400 python3 "$TOP/tests/functional/vm-part.py" "$WISP_BUILD/src/part/wisp-part" "$TMP" || {
	cat "$TMP/part.log" >&2
	fail "see above"
}
