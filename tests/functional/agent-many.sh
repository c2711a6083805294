#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 1,000 programs one after the other and 64 at once: nothing leaks; then the agent sleeps.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
agent_start

resident() {
	awk '/VmRSS/ {print $2}' "/proc/$AGENT/status"
}

switches() {
	awk '/ctxt_switches/ {n += $2} END {print n}' "/proc/$AGENT/status"
}

for i in $(seq 64); do
	agent exec sh -c "sleep 0.2; exit $((i % 100))" </dev/null &
	eval "client_$i=$!"
done
for i in $(seq 64); do
	rc=0
	eval "wait \$client_$i" || rc=$?
	expect "program $i of 64" $rc $((i % 100))
done
fds=$(fd_count) memory=$(resident) start=$(date +%s)
for i in $(seq 1000); do
	[ "$(agent exec -n echo "$i")" = "$i" ] || fail "exec $i"
done
echo "1,000 execs took $(($(date +%s) - start)) s"
wait_for 10 test "$(fd_count)" -le "$fds"
[ "$(resident)" -le $((memory + 512)) ] || fail "memory grew from $memory to $(resident) KiB"
expect "children left" "$(cat "/proc/$AGENT/task/$AGENT/children")" ""
sleep 0.5
before=$(switches)
sleep 3
expect "wake-ups of an idle agent" $(($(switches) - before)) 0
