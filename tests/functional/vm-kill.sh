#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# kill -9 of the command and of the network's keeper leaves nothing that the next command does not
# clean. Alone: tests/run vm-kill
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"

keeper() {
	for p in $(vm_processes); do
		if [ "$(cat "/proc/$p/comm")" = wisp-keeper ]; then
			echo "$p"
		fi
	done | sort -n | head -n 1
}

start() {
	wisp vm start "$@" --image minimal --memory 256M
}

running() {
	[ "$(vm_field "$1" state)" = running ]
}

listed() {
	wisp vm list --names | grep -qx "$1"
}

echo "the command is killed while it waits: the VM goes on"
start a >/dev/null 2>&1 &
command=$!
wait_for 10 listed a || fail "a did not start"
kill -KILL $command
wait $command || :
wait_for 120 running a || fail "a did not come up"
wisp vm exec a true

echo "the command is killed before it has a VM: the network ends by itself"
start --net other x >/dev/null 2>&1 &
command=$!
other() {
	[ -d "$WISP_RUN/net/other" ]
}
wait_for 10 other || fail "the network did not start"
kill -KILL $command
wait $command || :
wisp vm stop x --kill >/dev/null 2>&1 || :

echo "the keeper is killed: its VMs die, list says so once"
pid=$(vm_pid a)
kill -KILL "$(keeper)"
gone() {
	[ ! -e "/proc/$1" ] || grep -q '^State:.*Z' "/proc/$1/status"
}
wait_for 10 gone "$pid" || fail "the VM outlived its network"
wisp vm list | grep -q "network's keeper was killed" || fail "list does not tell"
expect "list after that" "$(wisp vm list)" ""
expect_nothing_left "after the keeper's death"

echo "and the name can be used at once"
start a >/dev/null
kill -KILL "$(keeper)"
start a >/dev/null || fail "a cannot be started again"
kill -KILL "$(keeper)"
wisp vm stop a >/dev/null || fail "stop does not sweep up"
expect_nothing_left "after stop"

echo "a stopped hypervisor can be killed"
start a >/dev/null
kill -STOP "$(vm_pid a)"
expect "stop" "$(wisp vm stop a --timeout 1)" "a: killed"
expect_nothing_left "after all"
