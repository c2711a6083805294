#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checkpoints in steps: four bare guests cut at once, movers killed and given up at each step, file
# systems that are full. The guests check their memory themselves.
. "$(dirname "$0")/bare-lib.sh"

PATH=$WISP_BUILD/src/mover:$PATH
set -- python3 "$TOP/tests/functional/bare-cut.py" "$GUEST" "$TMP"
"$@" || fail "see above"
unshare -m true 2>/dev/null && map= || map=-r
unshare $map -m true 2>/dev/null || skip "no mount namespaces here: a full file system was not tested"
mkdir "$TMP/full"
unshare $map -m sh -c 'full=$1; shift; mount -t tmpfs -o size=192m none "$full" && "$@" full' \
	sh "$TMP/full" "$@" || fail "a full file system: see above"
