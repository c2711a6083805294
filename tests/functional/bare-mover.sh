#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp-mover: checkpoints of running bare guests and restores of them; the guest checks its memory
# itself. Killed movers leave a VM that runs, and earlier epochs.
. "$(dirname "$0")/bare-lib.sh"

huge_pages 112
if available 8000; then huge_pages 1 1048576; fi
PATH=$WISP_BUILD/src/mover:$PATH
python3 "$TOP/tests/functional/bare-mover.py" "$GUEST" "$TMP" || fail "see above"
