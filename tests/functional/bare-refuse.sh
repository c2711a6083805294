#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts that cannot work are refused, with the reason and the right exit code: 2 for what was typed,
# 1 for what is not there.
. "$(dirname "$0")/bare-lib.sh"

K="-k $GUEST -s none"
no() {
	no_code=$1 no_text=$2
	shift 2
	refuse "$no_code" "$no_text" timeout 20 wisp-vmm "$@"
}

# The command line.
no 2 "wisp-vmm: no kernel given (--kernel FILE; --help tells more)"
no 2 "unknown option --frob (see --help)" $K --frob
no 2 "number of vCPUs 255 is out of range (1 to 254)" $K -c 255
no 2 "2 sockets x 64 cores x 2 threads are more than 254 vCPUs" $K -c sockets=2,cores=64,threads=2
no 2 "CPU list \"0-\" is not like 0-3,8 with ids below 1024" $K --pin 0-
no 2 "size \"much\" is not a number with a unit K, M, G or T" $K -m much
no 2 "there is no device \"floppy\" (--help lists them)" $K -d floppy
no 2 "device block needs path=" $K -d block

# Kernels. bytes OFFSET OCTAL... changes $TMP/k.
bytes() {
	bytes_at=$1
	shift
	printf "$(printf '\\%s' "$@")" | dd of="$TMP/k" bs=1 seek="$bytes_at" conv=notrunc status=none
}
bad_kernel() {
	no 1 "wisp-vmm: vm: kernel $TMP/k: $1" -k "$TMP/k" -s none -m 64
}
no 1 "cannot open kernel $TMP/none: No such file or directory" -k "$TMP/none"
no 1 "kernel $TMP is no regular file" -k "$TMP"
: >"$TMP/empty"
no 1 "kernel $TMP/empty is empty" -k "$TMP/empty"
echo "not a kernel" >"$TMP/k"
bad_kernel "neither a bzImage (no \"HdrS\" at 0x202) nor an ELF executable"
head -c 40 "$GUEST" >"$TMP/k"
bad_kernel "ELF kernel is truncated in its header"
head -c 100 "$GUEST" >"$TMP/k"
bad_kernel "ELF kernel is damaged: 2 program headers at 64 are not in its first 100 bytes"
head -c 5000 "$GUEST" >"$TMP/k"
bad_kernel "ELF kernel is truncated: a segment needs bytes"
cp "$GUEST" "$TMP/k"
bytes 18 267 # e_machine: AArch64
bad_kernel "ELF kernel is not for x86-64"
bytes 18 76
bytes 16 3 # e_type: shared object
bad_kernel "ELF kernel is not an executable (type 3)"
bytes 16 2
bytes 27 7 # e_entry: far away
bad_kernel "ELF kernel's entry 0x7100000 is in none of its segments"
bytes 27 0
bytes 90 0 # p_paddr of the first segment: 0
bad_kernel "ELF kernel wants to be loaded at 0x0, below 1 MiB"
bytes 90 20
bytes 149 20 # p_paddr of the second: above 16 TiB
bad_kernel "kernel is too large for the guest's memory: it needs"

head -c 65536 /dev/zero >"$TMP/k"
bytes 497 4 # setup_sects
bytes 510 125 252
bytes 514 110 144 162 123
bad_kernel "boot protocol 0.00 is too old, 2.12 (Linux 3.8) is needed"
bytes 518 17 2
bad_kernel "kernel has no 64-bit entry (a 32-bit kernel?)"
bytes 566 77
bad_kernel "bzImage header is damaged (load address 0x0, init_size 0)"
bytes 603 1 # pref_address 16 MiB
bytes 611 7 # init_size 112 MiB
bad_kernel "kernel is too large for the guest's memory: it needs 129 MiB, there are 64 MiB (below the PCI hole)"
bytes 497 377
bad_kernel "bzImage is truncated: 65536 bytes, 131072 of them set-up code"

# The other files.
no 1 "cannot open initrd $TMP/none: No such file or directory" $K -i "$TMP/none"
no 1 "initrd $TMP/empty is empty" $K -i "$TMP/empty"
truncate -s 300M "$TMP/initrd"
no 1 "initrd $TMP/initrd (301 MiB) does not fit between the kernel's end (1 MiB) and 256 MiB: give the guest more memory" \
	$K -i "$TMP/initrd"
no 1 "cannot open log file $TMP/none/log: No such file or directory" $K --log-file "$TMP/none/log"
no 1 "cannot listen on $TMP/none/control: No such file or directory" $K --control "$TMP/none/control"
no 1 "cannot listen on : No such file or directory" $K --control ""
no 1 "console \"tty\" is not one of stdio, socket=PATH, file=PATH or none" -k "$GUEST" -s tty
no 1 "cannot open console file $TMP/none/c: No such file or directory" -k "$GUEST" -s "file=$TMP/none/c"
no 1 "kernel command line of 2048 bytes is too long, the kernel takes 2047" \
	$K -a "$(head -c 2048 /dev/zero | tr '\0' x)"
no 1 "CPU model \"pentium\" is none of host, x86-64-v2, x86-64-v3, x86-64-v4 or a mask file" \
	$K --cpu-model pentium
echo "7 0 ebp 1" >"$TMP/mask"
no 1 "$TMP/mask:1: \"7 0 ebp 1\" is not like" $K --cpu-model "$TMP/mask"

# What the machine does not have, with numbers.
no 1 "page size must be 4K, 2M or 1G" $K --page-size 8K
no 1 "guest memory must be between 16 MiB and 32 TiB" $K -m 8
no 1 "guest memory of 16777217 bytes is no multiple of 4 KiB" $K -m 16777217B
no 1 "guest memory of 33554432 MiB does not fit: " $K -m 32T
no 1 " MiB are available on this machine (MemAvailable)" $K -m 32T
no 1 "guest memory needs 8388608 huge pages of 2 MiB, " $K -m 16T --page-size 2M
no 1 "guest memory needs 16384 huge pages of 1 GiB, " $K -m 16T --page-size 1G
if [ "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages 2>/dev/null || echo 1)" = 0 ]; then
	no 1 "guest memory needs 32 huge pages of 2 MiB, 0 are free (reserve more: echo N > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages)" \
		$K -m 64 --page-size 2M
fi
no 1 "this topology has APIC ids up to 320: ids above 254 need --irqchip split" \
	$K -c sockets=3,cores=65
no 1 "cannot pin vCPU 0 to CPU 1023: this process may not run there" $K --pin 1023
[ ! -e "$TMP/none" ] || fail "something was made"
