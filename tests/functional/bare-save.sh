#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A machine's state goes from VMM to VMM, again and again, and the guest finds its memory and
# itself as they were; states that are damaged or another machine's are refused.
. "$(dirname "$0")/bare-lib.sh"

python3 "$TOP/tests/functional/bare-save.py" "$GUEST" "$TMP" || fail "see above"
