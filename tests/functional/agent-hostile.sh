#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clients that send garbage or nothing, or vanish; a lying peer of copy-out writes nothing elsewhere.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
agent_start
fds=$(fd_count)
python3 "$(dirname "$0")/agent-hostile.py" "$TMP/agent" "$TMP" "$WISP_BUILD/tests/agent-client"
expect "after all that" "$(agent exec echo alive)" alive
wait_for 15 sh -c "[ \$(ls /proc/$AGENT/fd | wc -l) -le $fds ]"
