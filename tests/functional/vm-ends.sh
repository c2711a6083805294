#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# How VMs end by themselves, what is known of them then, and starts that fail.
# Alone: tests/run vm-ends
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"

start() {
	wisp vm start "$@" --image minimal --memory 256M >/dev/null
}

ended() {
	[ "$(vm_field "$1" state)" = ended ]
}

echo "refused by the hypervisor: why, and nothing stays"
refuse 1 "neither" wisp vm start a --image minimal --irqchip none
refuse 1 "memory" wisp vm start a --image minimal --memory 1000T
refuse 2 "cannot find disk" wisp vm start a --image minimal --disk "$TMP/no-such"
refuse 1 "10.78.0.2 to 10.78.0.254" wisp vm start a --image minimal --address 10.79.0.2
refuse 2 "--vhost is one of auto|on|off" wisp vm start a --image minimal --vhost maybe
expect list "$(wisp vm list)" ""
expect_nothing_left "after refusals"

echo "two starts of one name: one wins"
start a >"$TMP/1" 2>&1 &
first=$!
start a >"$TMP/2" 2>&1 &
second=$!
rc1=0 rc2=0
wait $first || rc1=$?
wait $second || rc2=$?
expect "exit codes" $((rc1 + rc2)) 1
grep -q "VM a runs already" "$TMP/1" "$TMP/2" || fail "the other is not told why"

echo "reboot: the same VM, with the names as they are now"
start b
boots=$(wisp vm log a | grep -c "init starts")
pid=$(vm_pid a)
wisp vm exec a -- busybox reboot -f || :
again() {
	[ "$(vm_field a state)" = running ] && [ "$(vm_pid a)" != "$pid" ]
}
wait_for 90 again || fail "a does not come back"
expect "boots in the log" "$(wisp vm log a | grep -c "init starts")" $((boots + 1))
expect "hosts after it" "$(wisp vm exec a -- grep -c '# wisp' /etc/hosts)" 2

echo "power-off from inside, guest panic, a killed hypervisor"
wisp vm exec a -- busybox poweroff -f || :
wait_for 60 ended a || fail "a did not end"
expect "reason of a" "$(vm_field a end.reason)" "powered off"
refuse 126 "VM a has ended: powered off" wisp vm exec a true
wisp vm exec b -- sh -c 'echo c >/proc/sysrq-trigger' || :
wait_for 60 ended b || fail "b did not end"
expect "reason of b" "$(vm_field b end.reason) $(vm_field b end.code)" "guest kernel panic 11"
wisp vm log b | grep -q "Kernel panic" || fail "the log does not show b's panic"
start c
kill -KILL "$(vm_pid c)"
wait_for 10 ended c || fail "c did not end"
expect "reason of c" "$(vm_field c end.reason)" "killed by signal 9 (Killed)"

echo "the power button"
start c
"$TOP/tests/functional/bare-ask.py" "$WISP_RUN/vm/c/control" power-button >/dev/null
wait_for 60 ended c || fail "c did not end"
expect "reason of c" "$(vm_field c end.reason)" "powered off"

echo "names can be used again, and records go"
start c --on-reboot exit
wisp vm exec c -- busybox reboot -f || :
wait_for 60 ended c || fail "c did not end"
expect "reason of c" "$(vm_field c end.reason)" rebooted
wisp vm stop --all >"$TMP/out"
expect "of ended VMs" "$(grep -c 'had ended before' "$TMP/out")" 3
expect_nothing_left "after stop"
