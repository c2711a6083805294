#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each device does real work, and the data is right: file systems on disks, a read-only disk,
# transfers between two VMs over vhost-net and over the user-space path, random numbers, the
# console. Alone: tests/run guest-devices
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest-lib.sh"
inside "$0"

truncate -s 256M "$TMP/disk"
head -c 20000000 /dev/urandom >"$TMP/data"
sum=$(sha256sum <"$TMP/data")
cp "$TMP/data" "$TMP/readonly"
truncate -s %512 "$TMP/readonly"

truncate -s 16M "$TMP/volume"
mkfs.ext4 -q "$TMP/volume"
refuse 2 "neither at=TARGET nor readonly" wisp vm start left --image minimal --disk "$TMP/disk,rw"
start_vm left --disk "$TMP/disk" --disk "$TMP/readonly,readonly" --disk "$TMP/volume,at=/srv/volume" \
	--vhost auto
start_vm right --vhost off

echo "disk: a file system, data in and out"
wisp vm cp "$TMP/data" left:/tmp/data
guest left sh -c 'mkfs.ext4 -q /dev/vdb && busybox mount /dev/vdb /mnt && cp /tmp/data /mnt/one &&
	for i in 1 2 3; do dd if=/mnt/one of=/mnt/$i bs=64k oflag=direct status=none; done &&
	sync && echo 3 >/proc/sys/vm/drop_caches'
for file in one 1 2 3; do
	expect "checksum of $file" "$(guest left sha256sum /mnt/$file | cut -d' ' -f1)" "${sum%% *}"
done
guest left sh -c 'busybox umount /mnt && e2fsck -fn /dev/vdb >/dev/null' || fail "the file system is damaged"

echo "disk: read-only"
expect "read-only flag" "$(guest left cat /sys/block/vdc/ro)" 1
expect "read-only data" "$(guest left sha256sum /dev/vdc | cut -d' ' -f1)" \
	"$(sha256sum "$TMP/readonly" | cut -d' ' -f1)"
! guest left dd if=/dev/zero of=/dev/vdc bs=512 count=1 2>/dev/null || fail "wrote to a read-only disk"

echo "disk: mounted where it was wanted"
guest left sh -c 'echo kept >/srv/volume/text && sync'
expect "where it is" "$(guest left sh -c 'grep /srv/volume /proc/mounts' | cut -d' ' -f1-3)" \
	"/dev/vdd /srv/volume ext4"

echo "network: both ways, checked"
transfer() {
	# Busybox's nc hangs up at the end of its input: the listener's never ends.
	guest "$2" sh -c 'rm -f /tmp/fifo; mkfifo /tmp/fifo; exec 9<>/tmp/fifo
		busybox timeout 120 busybox nc -l -p 7000 <&9 | sha256sum' >"$TMP/heard" &
	listener=$!
	guest "$1" sh -c "for i in 1 2 3 4 5 6 7 8 9; do
		busybox nc -w 60 $2 7000 </tmp/data && exit 0; sleep 1; done; exit 1"
	wait "$listener"
	expect "$1 to $2" "$(cat "$TMP/heard")" "$sum"
}
wisp vm cp "$TMP/data" right:/tmp/data
transfer left right
transfer right left
guest left ping -c 3 -i 0.2 right >/dev/null 2>&1 || guest left busybox ping -c 3 right >/dev/null
# Segments go over as one: what the offloads are for.
wisp vm stats right --json >"$TMP/stats"
expect "mtu" "$(guest left cat /sys/class/net/eth0/mtu)" 1500

echo "random numbers and the console"
guest left sh -c 'test "$(cat /sys/class/misc/hw_random/rng_current)" = virtio_rng.0 &&
	test "$(head -c 4096 /dev/hwrng | wc -c)" = 4096' || fail "virtio-rng"
guest left sh -c 'echo over the serial line >/dev/ttyS0'
for _ in 1 2 3 4 5; do
	wisp vm log left | grep -q "over the serial line" && break
	sleep 1
done
wisp vm log left | grep -q "over the serial line" || fail "the console's log"

wisp vm stop left right
# What the guest wrote is in the file, not in some cache of the VMM.
expect "file of the volume" "$(debugfs -R 'cat /text' "$TMP/volume" 2>/dev/null)" kept
e2fsck -fn "$TMP/disk" >/dev/null || fail "the disk image is damaged"
expect "file in the image" "$(debugfs -R 'cat /one' "$TMP/disk" 2>/dev/null | sha256sum)" "$sum"
