#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench/cluster-scale with twenty daemons: each operation is measured, and nothing is left of them,
# also when the bench is ended or killed.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"
set -- --fork --pid --kill-child --mount-proc --mount --net --ipc
[ "$(id -u)" = 0 ] || set -- "$@" --user --map-current-user --keep-caps
unshare "$@" mount -t tmpfs tmpfs /dev/shm 2>/dev/null || skip "no namespaces here"
export BUILD="$WISP_BUILD" PYTHONDONTWRITEBYTECODE=1

"$TOP/bench/cluster-scale" --nodes 10,20 --runs 1 --out "$TMP/out" >"$TMP/said" || fail "the bench failed"
python3 - "$TMP"/out/*.json <<'EOF' || fail "what it measured"
import json, sys

names = {f["name"]: f["median"] for f in json.load(open(sys.argv[1]))["figures"]}
for n in 10, 20:
    for op in ("join", "facts", "request that does nothing", "reserve", "network", "parts start", "start, all ready", "pause",
               "resume", "save begin", "save cut", "save resume", "save commit", "release"):
        for figure in "", ", CPU of a node", ", bytes of a node":
            assert names[f"{n} nodes: {op}{figure}"] > 0, op + figure
    assert names[f"{n} nodes: memory of a wispd (PSS)"] > 100
# What a node is told does not grow with their number.
assert names["20 nodes: start, all ready, bytes of a node"] < names["10 nodes: start, all ready, bytes of a node"] + 100
EOF

here=$(readlink /proc/self/ns/pid)

# Processes of the namespace in which the bench has its daemons.
inside() {
	# shellcheck disable=SC2010
	ls -l /proc/[0-9]*/ns/pid 2>/dev/null | grep -F "$1" || :
}

# Its end by a signal, once all is there.
ended_by() {
	"$TOP/bench/cluster-scale" --nodes 20 --runs 9 --out "$TMP/out" >"$TMP/said" 2>&1 &
	bench=$!
	at_exit "kill -9 $bench 2>/dev/null || :"
	space='' tries=0
	while [ -z "$space" ] || [ "$(inside "$space" | wc -l)" -lt 20 ]; do
		outer=$(cat "/proc/$bench/task/$bench/children")
		inner=$(cat "/proc/${outer% }/task/${outer% }/children" 2>/dev/null) || :
		space=$(readlink "/proc/${inner% }/ns/pid") || :
		[ "$space" != "$here" ] || space=''
		[ $((tries += 1)) -lt 300 ] || fail "no daemons: $(cat "$TMP/said")"
		sleep 0.1
	done
	kill "-$1" "$bench"
	code=0
	wait "$bench" || code=$?
	expect "exit code" "$code" "$2"
	tries=0
	while [ -n "$(inside "$space")" ]; do
		[ $((tries += 1)) -lt 100 ] || fail "left after $1: $(inside "$space")"
		sleep 0.1
	done
}
ended_by TERM 143
ended_by KILL 137
