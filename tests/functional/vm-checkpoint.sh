#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A VM is saved while it works, killed, and goes on from each epoch: programs, memory, network.
# Alone: tests/run vm-checkpoint
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"

refuse 1 "there is no VM a" wisp vm checkpoint a "$TMP/c"
refuse 1 "there is no checkpoint in" wisp vm restore "$TMP"
refuse 2 "frozen or elapsed" wisp vm restore "$TMP/c" --clock now

wisp vm start a b --image minimal --memory 256M --cpus 2
wisp vm exec a -- sh -c '
	head -c 30M /dev/urandom >/tmp/data
	sha256sum /tmp/data >/tmp/sum
	(i=0; while :; do i=$((i + 1)); echo $i >/tmp/count; sleep 0.1; done) >/dev/null 2>&1 &'
count() {
	wisp vm exec a cat /tmp/count
}
# It counts: on from FIRST (of a checkpoint), not from the beginning and not from later.
goes_on() {
	first=$(count)
	[ "$first" -ge "$1" ] || fail "the count went back: $first after $1"
	[ "$first" -le $(($1 + 600)) ] || fail "the count is of another time: $first, not $1"
	sleep 3
	[ "$(count)" -gt "$first" ] || fail "the count stands at $first"
	wisp vm exec a -- sha256sum -c /tmp/sum >/dev/null || fail "memory has changed"
	wisp vm exec a -- busybox ping -c 1 -W 10 b >/dev/null || fail "a does not reach b"
	wisp vm exec b -- busybox ping -c 1 -W 10 a >/dev/null || fail "b does not reach a"
}

echo "epoch 1"
one=$(count)
wisp vm checkpoint a "$TMP/c" --json >"$TMP/report"
python3 -m json.tool "$TMP/report" >/dev/null || fail "the report is no JSON"
goes_on "$one"
echo "epoch 2"
two=$(count)
wisp vm checkpoint a "$TMP/c" --live --incremental
wisp checkpoint verify "$TMP/c"
refuse 1 "runs already" wisp vm restore "$TMP/c"

for epoch in 1 2; do
	echo "back to epoch $epoch"
	wisp vm stop --kill a
	wisp vm restore "$TMP/c" --at "$epoch"
	if [ "$epoch" = 1 ]; then goes_on "$one"; else goes_on "$two"; fi
done

echo "a restored VM is saved, and restored while its memory comes"
three=$(count)
wisp vm checkpoint a "$TMP/c" --compress lz4
wisp vm stop --kill a
wisp vm restore "$TMP/c" --lazy
goes_on "$three"
wisp checkpoint list "$TMP/c"

echo "asleep in memory and on disk"
refuse 2 "--compress=lz4 is for a VM saved in a folder" wisp vm suspend a --compress lz4
four=$(count)
wisp vm suspend a
expect "state" "$(vm_field a state)" paused
wisp vm resume a
wisp vm suspend a "$TMP/d" --compress zstd
expect "gone" "$(wisp vm list --names)" b
wisp vm restore "$TMP/d"
goes_on "$four"
wisp vm stop a b | grep -q "a: powered off by its agent" || fail "no power-off"
expect_nothing_left "after restores"
