#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A VM whose disk is locked where it goes to: the node gives it up when it is to run there. It goes on
# where it was, and both nodes come to know that, whichever commands are killed meanwhile.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/network-lib.sh"
ADDRESS=tcp:192.168.51.2:4711
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$TMP/token"
truncate -s 1M "$TMP/disk" "$TMP/copy"
add_node n1 192.168.51.1
add_node n2 192.168.51.2

# A process that has the disk that n2 sees.
python3 -c '
import fcntl, sys, time
f = open(sys.argv[1], "r+b")
fcntl.lockf(f, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(3600)' "$TMP/copy" >"$TMP/locker" &
locker=$!
at_exit "kill $locker 2>/dev/null"
until grep -q locked "$TMP/locker"; do sleep 0.1; done

wait_until() {
	for wait_until_i in $(seq 300); do
		! "$@" || return 0
		sleep 0.1
	done
	return 1
}
listens() {
	on n2 grep -q ":1267 00000000:0000 0A" /proc/net/tcp
}
# receive [OPTION...]: at n2, in the background; $receiver is the process
receive() {
	rm -f "$TMP/received"
	WISP_RUN=$TMP/n2 ip netns exec "$SPACE-n2" sh -c 'disk=$1 copy=$2
		shift 2
		mount --bind "$copy" "$disk" && exec wisp vm receive "$@"' sh "$TMP/disk" "$TMP/copy" \
		--listen "$ADDRESS" --timeout 1000 "$@" <"$TMP/vm.json" >"$TMP/received" 2>&1 &
	receiver=$!
}
receiving() {
	receive "$@"
	wait_until listens || fail "nobody listens: $(cat "$TMP/received")"
}
received() {
	received_rc=0
	wait "$receiver" || received_rc=$?
	[ "$received_rc" = "$1" ] || fail "receive: exit code $received_rc: $(cat "$TMP/received")"
}
migrate() {
	on n1 wisp vm migrate a "$ADDRESS" --token "$TMP/token" --timeout 1000 "$@"
}
# state NODE send|receive: of the record there
state() {
	sed -n 's/.*"state": "\(.*\)".*/\1/p' "$TMP/$1/vm/a/$2.record" 2>/dev/null
}
listed() {
	on "$1" wisp vm list | grep -q "$2" || fail "list of $1: $(on "$1" wisp vm list)"
}
stays() {
	goes_on n1
	nothing n2
	[ ! -e "$TMP/n1/vm/a/send.record" ] || fail "the record of n1 is left: $(state n1 send)"
	refuse 1 "from this machine is unsettled: it is here" migrate --again
}
# given MS: a migration whose source takes so long to record that n2 has given the VM up
given() {
	receiving --token "$TMP/token"
	LD_PRELOAD=$WISP_BUILD/tests/broken-disk.so BROKEN_CALL=sync BROKEN_PATH=send.record \
		BROKEN_FROM=3 BROKEN_DELAY=$1 WISP_RUN=$TMP/n1 ip netns exec "$SPACE-n1" \
		wisp vm migrate a "$ADDRESS" --token "$TMP/token" --timeout 1000 >"$TMP/sent" 2>&1 &
	migration=$!
	wait_until aborted || fail "n2: $(state n2 receive): $(cat "$TMP/sent" "$TMP/received")"
	expect "n1" "$(state n1 send)" given
}
aborted() {
	[ "$(state n2 receive)" = aborted ]
}

on n1 wisp vm start a --image minimal --kernel "$GUEST" --force --no-wait --memory 64M \
	--disk "$TMP/disk" --cmdline-add "work=65536" >/dev/null
cp "$TMP/n1/vm/a/vm.json" "$TMP/vm.json"
goes_on n1

echo "nobody dies"
receiving --token "$TMP/token"
refuse 1 "the target could not run the VM" migrate
received 1
stays

echo "the source is killed before it hears, and n2 waits for it in vain"
given 60000
kill -KILL $migration # and wisp-mover with it
wait $migration 2>/dev/null || :
received 5
listed n1 "may run there"
refuse 1 "may run there" on n1 wisp vm resume a
listed n2 "will not run here, and the place it comes from may not know"
refuse 1 "will not run here" on n2 wisp vm stop a
refuse 1 "will not run here" start n2 a
refuse 3 "stays paused until the target answers" timeout --preserve-status 3 ip netns exec "$SPACE-n1" env \
	"WISP_RUN=$TMP/n1" wisp vm migrate a "$ADDRESS" --token "$TMP/token" --timeout 1000 --again
receiving --again a --token "$TMP/token"
refuse 1 "the target could not run the VM" migrate --again
received 1
stays

echo "n2 is killed before the source hears, and goes on later"
given 5000
kill -KILL $receiver
wait $receiver 2>/dev/null || :
sleep 1.5 # the keeper takes nothing back
listed n2 "will not run here, and the place it comes from may not know"
receive --again a --token "$TMP/token"
received 1
wait $migration && fail "it did not move, and yet: $(cat "$TMP/sent")"
grep -q "the target could not run the VM" "$TMP/sent" || fail "$(cat "$TMP/sent")"
stays

echo "a source that has its VM back is not told that n2 knows: its record tells it later"
given 60000
kill -KILL $receiver $migration
wait $receiver $migration 2>/dev/null || :
sed -i 's/"given"/"giving"/' "$TMP/n1/vm/a/send.record" # as if it had heard
refuse 5 "the VM is where it came from" migrate --again
goes_on n1
expect "n1" "$(state n1 send)" back
listed n1 "has stayed here, and the place where it was to go may not know"
receiving --again a --token "$TMP/token"
refuse 1 "the VM has stayed here" migrate --again
received 1
stays
on n1 wisp vm stop a --kill >/dev/null
nothing n1
