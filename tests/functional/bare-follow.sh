#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Post-copy of running bare guests by wisp-mover: the guest checks its memory itself while it comes.
# Movers are killed, connections cut and stalled; what cannot go on ends and says so.
. "$(dirname "$0")/bare-lib.sh"

huge_pages 128
if available 8000; then huge_pages 1 1048576; fi
PATH=$WISP_BUILD/src/mover:$PATH
python3 "$TOP/tests/functional/bare-follow.py" "$GUEST" "$TMP" || fail "see above"
