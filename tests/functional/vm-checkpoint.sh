#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A VM is saved while it works, killed, and goes on from each epoch: programs, memory, network.
# Alone: tests/run vm-checkpoint
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"

refuse 1 "there is no VM a" wisp vm checkpoint a "$TMP/c"
refuse 1 "there is no checkpoint in" wisp vm restore "$TMP"
refuse 2 "frozen or elapsed" wisp vm restore "$TMP/c" --clock now

head -c 16M /dev/urandom >"$TMP/disk"
wisp vm start b --image minimal --memory 256M
wisp vm start a --image minimal --memory 256M --cpus 2 --disk "$TMP/disk"
# Each epoch is saved with its number on the disk.
mark() {
	wisp vm exec a -- sh -c "echo epoch $1 | dd of=/dev/vdb bs=512 seek=7777 conv=sync,fsync 2>/dev/null"
}
marked() {
	expect "on the disk" "$(wisp vm exec a -- sh -c \
		"dd if=/dev/vdb bs=512 skip=7777 count=1 iflag=direct 2>/dev/null | head -c 7")" "epoch $1"
}
wisp vm exec a -- sh -c '
	head -c 12M /dev/urandom >/tmp/data
	sha256sum /tmp/data >/tmp/sum
	perl -e "$2" >/dev/null 2>&1 &
	# What it writes to its disk, it notes in its memory before. Each is in a cluster of its own.
	perl -e "$1" >/dev/null 2>&1 &
	until [ -s /tmp/count ]; do sleep 0.1; done' sh '
	use Fcntl;
	sysopen(my $disk, "/dev/vdb", O_RDWR | O_SYNC) or die;
	open(my $memory, ">>", "/tmp/written") or die;
	for (my $i = 1; ! -e "/tmp/enough"; $i++) {
		open(my $random, "<", "/proc/sys/kernel/random/uuid") or die;
		my $line = "$i " . <$random>;
		syswrite($memory, $line);
		sysseek($disk, ($i * 37 % 256) << 16, 0);
		syswrite($disk, pack("a512", $line));
		select(undef, undef, undef, 0.1);
	}' "$COUNTS"
# of_one_moment EPOCH: the disk in it has what the restored memory says, and nothing newer.
of_one_moment() {
	wisp vm exec a cat /tmp/written >"$TMP/written"
	python3 - "$TMP/c/$1/disk.block1" "$TMP/written" <<-'END' || fail "disk and memory of epoch $1 differ"
		import re, sys
		memory = dict(line.split() for line in open(sys.argv[2]))
		disk = {}
		with open(sys.argv[1], "rb") as f:
		    for cluster in range(256):
		        f.seek(cluster << 16)
		        found = re.match(rb"(\d+) ([0-9a-f-]{36})\n\0", f.read(64))
		        if found:
		            disk[int(found[1])] = found[2].decode()
		last = max(disk)
		for i in range(max(1, last - 255), last + 1):
		    assert disk.get(i) == memory.get(str(i)), f"write {i} of {last}: {disk.get(i)}"
		print(f"{last} writes are on the disk")
	END
}
count() {
	wisp vm exec a cat /tmp/count
}
counts_beyond() {
	[ "$(count)" -gt "$1" ]
}
# It counts: on from FIRST (of a checkpoint), not from the beginning and not from later.
goes_on() {
	first=$(count)
	[ "$first" -ge "$1" ] || fail "the count went back: $first after $1"
	[ "$first" -le $(($1 + 600)) ] || fail "the count is of another time: $first, not $1"
	wait_for 20 counts_beyond "$first"
	wisp vm exec a -- sha256sum -c /tmp/sum >/dev/null || fail "memory has changed"
	wisp vm exec a -- busybox ping -c 1 -W 10 b >/dev/null || fail "a does not reach b"
	wisp vm exec b -- busybox ping -c 1 -W 10 a >/dev/null || fail "b does not reach a"
}

echo "epoch 1"
one=$(count)
mark 1
wisp vm checkpoint a "$TMP/c" --json >"$TMP/report"
python3 -c 'import json, sys
disk = json.load(open(sys.argv[1]))["disks"]["block1"]
print("the disk:", disk)
assert disk["bytes"] + disk["vm_bytes"] >= 16 << 20, disk
assert disk["vm_bytes"], "nothing was written meanwhile"' "$TMP/report" || fail "the report of the disk"
goes_on "$one"
echo "epoch 2"
two=$(count)
mark 2
wisp vm checkpoint a "$TMP/c" --live --incremental
wisp checkpoint verify "$TMP/c"
wisp checkpoint show "$TMP/c" | grep -Eq "^image +[0-9a-f]{64}" || fail "no digest of the image"
refuse 1 "runs already" wisp vm restore "$TMP/c"

for epoch in 1 2; do
	echo "back to epoch $epoch"
	mark "$epoch, and more"
	wisp vm stop --kill a
	refuse 1 "was written since epoch" wisp vm restore "$TMP/c" --at "$epoch"
	wisp vm restore "$TMP/c" --at "$epoch" --force
	marked "$epoch"
	of_one_moment "$epoch"
	if [ "$epoch" = 1 ]; then goes_on "$one"; else goes_on "$two"; fi
done

echo "a restored VM is saved, and restored while its memory comes"
three=$(count)
wisp vm exec a touch /tmp/enough
sleep 3
mark 3
wisp vm suspend a "$TMP/c" --compress lz4
wisp vm restore "$TMP/c" --lazy --disk "$TMP/elsewhere"
marked 3
goes_on "$three"
cmp "$TMP/disk" "$TMP/elsewhere" || fail "the disk elsewhere has another content"
wisp checkpoint list "$TMP/c"

echo "asleep in memory and on disk"
refuse 2 "--compress=lz4 is for a VM saved in a folder" wisp vm suspend a --compress lz4
four=$(count)
wisp vm suspend a
expect "state" "$(vm_field a state)" paused
wisp vm resume a
wisp vm suspend a "$TMP/d" --compress zstd
expect "gone" "$(wisp vm list --names)" b
wisp vm restore "$TMP/d" --set-clock
behind=$(($(date +%s) - $(wisp vm exec a -- date +%s)))
[ "$behind" -lt 10 ] && [ "$behind" -gt -10 ] || fail "the guest's clock is behind by $behind s"
goes_on "$four"
wisp vm stop a b | grep -q "a: powered off by its agent" || fail "no power-off"
expect_nothing_left "after restores"
