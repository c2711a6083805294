#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wispd as a program: started, asked by wisp, refused twice, drained, killed and found again.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3"

export WISP_RUN="$TMP/run" WISP_HOME="$TMP/home"
wispd=$WISP_BUILD/src/node/wispd
state=$TMP/state
socket=$state/socket

stop() {
	[ -z "${pid:-}" ] || kill -"${1:-TERM}" "$pid" 2>/dev/null || :
	[ -z "${pid:-}" ] || wait "$pid" || stopped=$?
	pid=
}
at_exit stop KILL

start() {
	"$wispd" --state "$state" --topology "pack:2 numa:1 core:4 pu:2" --name n1 --label fast \
		--grace 2 "$@" 2>"$TMP/log" &
	pid=$!
	for _ in $(seq 100); do
		if wisp node list --socket "$socket" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	cat "$TMP/log" >&2
	fail "wispd does not answer"
}

# Nobody is there.
refuse 1 "systemctl start wispd" wisp node list --socket "$socket"
refuse 2 "--type fat" "$wispd" --type fat
refuse 2 "--grace 0" "$wispd" --grace 0
refuse 1 "no-such-group" "$wispd" --state "$state" --operators no-such-group

# It says what it is made of, also as JSON, and systemd hears that it is ready.
python3 - "$TMP/notify" >"$TMP/heard" <<'END' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(30)
print(s.recv(100).decode())
END
listener=$!
for _ in $(seq 100); do [ -S "$TMP/notify" ] && break || sleep 0.1; done
NOTIFY_SOCKET=$TMP/notify start
wait "$listener"
expect "systemd" "$(cat "$TMP/heard")" "READY=1"
wisp node show n1 --socket "$socket" | grep -q "2 sockets, 8 cores, 16 threads, 2 NUMA nodes" ||
	fail "wisp node show does not say what the node is made of"
expect "labels" "$(wisp node list --json --socket "$socket" |
	python3 -c 'import json, sys; print(*json.load(sys.stdin)[0]["labels"])')" fast
refuse 1 "not n2" wisp node show n2 --socket "$socket"
expect "records" "$(wisp account --json --socket "$socket")" "[]"

# A second one is told who has the state, and takes nothing from the first.
refuse 1 "another wispd (pid $pid)" "$wispd" --state "$state"
wisp node list --socket "$socket" >/dev/null || fail "the second daemon ended the first"

# What operators said outlives the daemon, killed or not.
wisp node drain "a fan is loud" --socket "$socket"
stop KILL
start
wisp node show --socket "$socket" | grep -q "draining: a fan is loud" || fail "the drain is forgotten"
wisp node resume --socket "$socket"
wisp node list --socket "$socket" | grep -q draining && fail "still draining"

# It ends when it is asked to, with its socket.
stopped=0
stop
expect "exit code" "$stopped" 0
[ ! -e "$socket" ] || fail "its socket is left"

# Without --state it is where programs look for it.
WISP_RUN=$TMP/run start --log-level warn
stop
env -u WISP_STATE "$wispd" --topology "pack:1 core:2 pu:1" --name own --state "$TMP/run/node" 2>"$TMP/log" &
pid=$!
for _ in $(seq 100); do wisp node list >/dev/null 2>&1 && break || sleep 0.1; done
wisp node list | grep -q "^own " || fail "wisp does not find the daemon by itself"
stop
