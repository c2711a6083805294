#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a mover needs of a running machine: written pages, all and no others; memory that comes when
# the guest touches it; vCPUs that are slowed down. All of it ends with its connection.
. "$(dirname "$0")/bare-lib.sh"

huge_pages 32
python3 "$TOP/tests/functional/bare-track.py" "$GUEST" "$TMP" || fail "see above"
