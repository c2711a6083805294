#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp lab run: the script's exit code, where it runs, and what happens when it is killed.
# Alone: tests/run lab-run
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab-lib.sh"

keeper_runs() {
	[ -n "$(lab_keeper)" ]
}

refuse 2 "no program to run" lab run
refuse 2 "--nodes" lab run --nodes 0 -- true
refuse 2 "multiple of 2 MiB" lab run --memory 100M -- true
refuse 2 "names node2 of 1" lab run --disk node2:/dev/null -- true

echo "on this machine, with exec"
rc=0
lab run --memory 1G -- sh -c 'wisp lab exec node1 hostname; echo "$WISP_LAB"; exit 9' \
	>"$TMP/out" || rc=$?
expect "exit code" "$rc" 9
expect "first line" "$(sed -n 1p "$TMP/out")" node1
case $(sed -n 2p "$TMP/out") in run-*) ;; *) fail "WISP_LAB is $(sed -n 2p "$TMP/out")" ;; esac
expect_nothing_left "after run"

echo "in the node, killed while it runs"
WISP_RUN=$RUN wisp lab run --on node1 --memory 1G -- sh -c 'hostname; sleep 1000' >"$TMP/out" &
run=$!
in_node() {
	grep -q node1 "$TMP/out"
}
wait_for 120 in_node || fail "the program does not run"
kill -9 $run
expect_nothing_left "after kill -9 of run"
