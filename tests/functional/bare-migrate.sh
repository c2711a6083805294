#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Running bare guests move from VMM to VMM; movers killed at any moment leave exactly one that runs.
. "$(dirname "$0")/bare-lib.sh"

PATH=$WISP_BUILD/src/mover:$PATH
python3 "$TOP/tests/functional/bare-migrate.py" "$GUEST" "$TMP" || fail "see above"
