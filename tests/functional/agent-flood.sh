#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A program that leaves a flooded stdin unread: its output and signals still get through.
# Alone: tests/run agent-flood
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
agent_start
# A signal gets through although the program leaves its full stdin unread.
$agent_client exec sh -c 'echo ready; exec sleep 1000' <"/dev/zero" >"$TMP/out" &
client=$!
wait_for 10 grep -q ready "$TMP/out"
sleep 0.5
kill -USR1 $client
rc=0
wait $client || rc=$?
expect "SIGUSR1 beside a blocked stdin" $rc 138
