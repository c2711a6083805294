#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kill -9 of each part of a lab: what is left is told, and the next up or down cleans it.
# Alone: tests/run lab-kill
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab-lib.sh"

keeper_runs() {
	[ -n "$(lab_keeper)" ]
}
node_says() {
	lab status | grep -q "$1 .*$2"
}

echo "the command, while the nodes start: the lab ends with it"
WISP_RUN=$RUN wisp lab up 2>/dev/null &
up=$!
wait_for 20 keeper_runs || fail "no keeper"
kill -9 $up
expect_nothing_left "after kill -9 of up"

echo "interrupted: likewise"
WISP_RUN=$RUN setsid wisp lab up 2>/dev/null &
up=$!
wait_for 20 keeper_runs || fail "no keeper"
kill -TERM $up
expect_nothing_left "after SIGTERM to up"

echo "QEMU of one node, virtiofsd of the other"
lab up --nodes 2 --memory 1G 2>"$TMP/log" || fail "up: $(cat "$TMP/log")"
kill -9 "$(lab_pids qemu-system 'name node1')"
wait_for 10 node_says node1 'QEMU was killed by signal 9' || fail "status: $(lab status)"
refuse 126 "node1 of lab lab does not run: QEMU was killed" lab exec node1 true
lab exec node2 true || fail "the other node died as well"
for p in $(lab_pids virtiofsd 'source=/'); do
	kill -9 "$p"
done
wait_for 10 node_says node2 'virtiofsd was killed by signal 9' || fail "status: $(lab status)"
refuse 126 "node2 of lab lab does not run" lab exec node2 true

echo "the keeper: all ends, status tells, down sweeps"
kill -9 "$(lab_keeper)"
wait_for 10 no_processes || fail "processes outlive the keeper"
lab status | grep -q crashed || fail "status: $(lab status)"
refuse 126 "no lab lab runs" lab exec node1 true
lab down 2>/dev/null
expect_nothing_left "after kill -9 of the keeper and down"

echo "up after a crash"
lab up --memory 1G 2>"$TMP/log" || fail "up: $(cat "$TMP/log")"
kill -9 "$(lab_keeper)"
lab up --memory 1G 2>"$TMP/log" || fail "up after a crash: $(cat "$TMP/log")"
lab exec node1 true || fail "the new lab does not work"

echo "a stopped keeper does not stop down"
kill -STOP "$(lab_keeper)"
lab down 2>/dev/null || fail "down of a stopped keeper"
expect_nothing_left "at the end"
