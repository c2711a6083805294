#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Linux sees the vCPUs, topology, caches and memory it was given: 1, 2 and 4 vCPUs; 256 MiB,
# 3.5 GiB (across the PCI hole) and 6 GiB, in pages of 4 KiB, 2 MiB and 1 GiB; interrupt controllers in the kernel and split.
# Alone: tests/run guest-shape
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest-lib.sh"
inside "$0"

# shape CPUS TOPOLOGY MEMORY-MIB [OPTION...]: starts a VM and compares what it sees.
shape() {
	cpus=$1 topology=$2 memory=$3
	shift 3
	start_vm shape --cpus "$topology" --memory "${memory}M" "$@"
	guest shape sh -c '
		echo nproc $(nproc)
		lscpu | sed -n "s/^\(Socket(s)\|Core(s) per socket\|Thread(s) per core\): */\1 /p"
		echo memory $(($(sed -n "s/^MemTotal: *\([0-9]*\) kB/\1/p" /proc/meminfo) / 1024))
		echo pus $(hwloc-calc --number-of pu all) packages $(hwloc-calc --number-of package all)
		echo caches $(hwloc-calc --number-of l1cache all) $(hwloc-calc --number-of l2cache all)
		echo clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)' \
		>"$TMP/seen"
	cat "$TMP/seen"
	seen() {
		sed -n "s/^$1 //p" "$TMP/seen"
	}
	expect nproc "$(seen nproc)" "$cpus"
	expect PUs "$(seen pus)" "$cpus packages $(field sockets "$topology")"
	expect sockets "$(seen 'Socket(s)')" "$(field sockets "$topology")"
	expect cores "$(seen 'Core(s) per socket')" "$(field cores "$topology")"
	expect threads "$(seen 'Thread(s) per core')" "$(field threads "$topology")"
	cores=$(($(field sockets "$topology") * $(field cores "$topology")))
	expect caches "$(seen caches)" "$cores $cores"
	expect clock "$(seen clock)" kvm-clock
	# The kernel keeps some for itself: its text, a struct page for each page, hash tables.
	got=$(seen memory)
	[ "$got" -le "$memory" ] && [ "$got" -ge $((memory * 94 / 100 - 32)) ] ||
		fail "memory: $got MiB of $memory"
	wisp vm stop shape
}

# field NAME TOPOLOGY: its count, 1 when left out.
field() {
	echo "$2" | tr , '\n' | sed -n "s/^$1=//p" | grep . || echo 1
}

# huge SIZE COUNT KIB OPTION...: memory in pages of KIB that the machine sets aside for it.
huge() {
	size=$1 count=$2 pool=/sys/kernel/mm/hugepages/hugepages-$3kB
	shift 3
	old=$(cat "$pool/nr_hugepages" 2>/dev/null || echo 0)
	echo $((old + count)) 2>/dev/null >"$pool/nr_hugepages" || :
	if [ "$(cat "$pool/free_hugepages" 2>/dev/null || echo 0)" -lt "$count" ]; then
		echo "left out: no $count pages of $size"
	else
		free=$(cat "$pool/free_hugepages")
		start_vm huge --page-size "$size" "$@"
		[ "$(cat "$pool/free_hugepages")" -lt "$free" ] || fail "no page of $size is in use"
		guest huge sh -c 'head -c 64M /dev/urandom >/tmp/a; cp /tmp/a /tmp/b; cmp /tmp/a /tmp/b'
		wisp vm stop huge
	fi
	echo "$old" 2>/dev/null >"$pool/nr_hugepages" || :
}

shape 1 sockets=1,cores=1,threads=1 256
huge 2M 160 2048 --memory 320M --prefault
huge 1G 1 1048576 --memory 1G
shape 2 sockets=1,cores=2,threads=1 3584 --irqchip split
shape 4 sockets=2,cores=1,threads=2 6144
