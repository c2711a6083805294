#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Folders of the host in a guest: data both ways, read-only ones, pauses, a checkpoint and what
# comes back from it, a share that is in use. Alone: tests/run guest-share
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest-lib.sh"
inside "$0"

mkdir "$TMP/data" "$TMP/fixed"
head -c 5000000 /dev/urandom >"$TMP/data/one"
echo fixed >"$TMP/fixed/text"
refuse 2 "is not TAG=PATH" wisp vm start left --image minimal --share "$TMP/data"
refuse 2 "cannot find $TMP/none" wisp vm start left --image minimal --share "a=$TMP/none"
refuse 2 'neither at=TARGET nor readonly' wisp vm start left --image minimal --share "a=$TMP/data,rw"
start_vm left --share "data=$TMP/data" --share "fixed=$TMP/fixed,at=/srv/fixed,readonly"

echo "both ways"
expect "what the host wrote" "$(guest left sha256sum /mnt/data/one | cut -d' ' -f1)" \
	"$(sha256sum <"$TMP/data/one" | cut -d' ' -f1)"
guest left sh -c 'cp /mnt/data/one /mnt/data/two && sync'
cmp "$TMP/data/one" "$TMP/data/two" || fail "what the guest wrote"
expect "read-only, read" "$(guest left cat /srv/fixed/text)" fixed
! guest left sh -c 'echo x >/srv/fixed/text' 2>/dev/null || fail "wrote to a read-only share"
! guest left sh -c 'mount -o remount,rw /srv/fixed; echo x >/srv/fixed/text' 2>/dev/null || :
expect "read-only, by the host's kernel" "$(cat "$TMP/fixed/text")" fixed

echo "while it is paused and after"
guest left sh -c 'cd /tmp; sha256sum /mnt/data/one /mnt/data/one /mnt/data/one >/tmp/sums' &
reader=$!
for i in 1 2 3; do
	wisp vm pause left
	wisp vm resume left
done
wait $reader
expect "sums" "$(guest left sort -u /tmp/sums | wc -l)" 1

echo "a checkpoint, and what is in use"
guest left sh -c 'cd /mnt/data; sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid'
refuse 1 "cannot unmount share data at /mnt/data" wisp vm checkpoint left "$TMP/saved"
expect "it is there still" "$(guest left cat /srv/fixed/text)" fixed
guest left sh -c 'kill $(cat /tmp/pid); sleep 0.2'
wisp vm checkpoint left "$TMP/saved" --live
expect "it is there again" "$(guest left cat /srv/fixed/text)" fixed
wisp vm stop left --kill
refuse 1 "has shares" wisp vm restore "$TMP/saved" --lazy
echo changed >"$TMP/data/three"
wisp vm restore "$TMP/saved"
expect "after a restore" "$(guest left cat /mnt/data/three)" changed

echo "a reboot, and the end of what serves it"
guest left reboot || :
sleep 1
for i in $(seq 60); do
	! wisp vm exec left -- test -e /mnt/data/three 2>/dev/null || break
	sleep 1
done
expect "after a reboot" "$(guest left cat /mnt/data/three)" changed
wisp vm stop left
! grep -l virtiofsd /proc/[0-9]*/comm 2>/dev/null | while read -r comm; do
	grep -q "$TMP/data" "${comm%/comm}/cmdline" && echo "$comm"
done | grep -q . || fail "a virtiofsd is left"
