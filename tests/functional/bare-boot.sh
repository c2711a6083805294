#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A guest starts from an ELF file, finds what the boot protocol promises, uses all its RAM on both
# sides of the PCI hole, and its end becomes the exit code.
. "$(dirname "$0")/bare-lib.sh"

run "say=hello open-bus off"
expect "power-off" "$rc" 0
expect "output" "$(cat "$TMP/out")" "hello
open ffffffff ffffffff"
expect "words on stderr" "$(cat "$TMP/err")" ""

for irqchip in kernel split; do
	run "reset" --on-reboot exit --irqchip $irqchip
	expect "reset" "$rc" 10
	expect "its text" "$(cat "$TMP/err")" "wisp-vmm: vm: rebooted"
	run "panic" --name p1 --irqchip $irqchip
	expect "panic" "$rc" 11
	grep -q "p1\[power\] error: the guest kernel panicked" "$TMP/err" || fail "no panic in the log"
	run "triple" --log-file "$TMP/log" --irqchip $irqchip
	expect "triple fault" "$rc" 12
	expect "its text" "$(cat "$TMP/err")" "wisp-vmm: vm: guest triple fault"
	expect "reports" "$(grep -c 'vCPU 0: triple fault .* at rip 0x10' "$TMP/log")" 1
	rm "$TMP/log"
done

# memory MIB STEP MAP WORDS: the map that the guest sees, and words all over its RAM.
memory() {
	if ! available "$1"; then
		echo "left out: $1 MiB are not available"
		return
	fi
	run "e820 fill=$2 verify=$2 off" -m "$1"
	expect "$1 MiB" "$rc" 0
	expect "e820 of $1 MiB" "$(sed -n 's/^e820 //p' "$TMP/out")" "0 9fc00 ram
9fc00 100000 res
$3"
	grep -q "^verified [0-9a-f]* bad 0$" "$TMP/out" || fail "$1 MiB: $(cat "$TMP/out")"
	expect "words" "$(sed -n 's/^filled \([0-9a-f]*\).*/\1/p' "$TMP/out")" "$(printf %x "$4")"
}
# Words: one a step from the guest's end in each region, and its last. Each takes a huge page.
memory 16 0x100000 "100000 1000000 ram
e0000000 f0000000 res" 16
memory 256 0x100000 "100000 10000000 ram
e0000000 f0000000 res" 256
memory 3584 0x800000 "100000 c0000000 ram
e0000000 f0000000 res
100000000 120000000 ram" 450
memory 6144 0x800000 "100000 c0000000 ram
e0000000 f0000000 res
100000000 1c0000000 ram" 770

# Every page, populated before.
run "fill=4096 verify=4096 off" -m 64 --prefault
expect "prefault" "$rc" 0
grep -q "bad 0" "$TMP/out" || fail "prefault: $(cat "$TMP/out")"

head -c 100000 /dev/zero | tr '\0' '\7' >"$TMP/initrd"
run "initrd off" -m 64 -i "$TMP/initrd"
expect "initrd" "$(cat "$TMP/out")" "initrd 3fe7000 186a0 aae60"

# Any number of vCPUs, also with APIC ids beyond 8 bits.
run "say=many off" -c 254
expect "254 vCPUs" "$rc $(cat "$TMP/out")" "0 many"
run "say=sparse off" -c sockets=2,cores=127 --irqchip split
expect "127 cores a socket" "$rc $(cat "$TMP/out")" "0 sparse"

# Reboot starts the machine again, in the same process.
start "say=boot spin=20 reset" --name again
wait_for "the third boot" sh -c "[ \$(grep -c boot '$TMP/out') -ge 3 ]"
kill -TERM "$vm"
ended 0

# Standard input that ends does not end the output, standard output that nobody reads
# does not stop the guest.
(sleep 0.2 | timeout 60 wisp-vmm -k "$GUEST" -a "spin=500 say=late off" >"$TMP/out" 2>&1) ||
	fail "$(cat "$TMP/out")"
expect "output after the end of input" "$(cat "$TMP/out")" "spun
late"
mkfifo "$TMP/pipe"
sleep 60 <"$TMP/pipe" &
reader=$!
at_exit "kill $reader 2>/dev/null"
wisp-vmm -k "$GUEST" -m 64 -a "dirty=0" --control "$CONTROL" >"$TMP/pipe" </dev/null &
vm=$!
wait_for "the control socket" [ -S "$CONTROL" ]
expect "state with a full pipe" "$(ask status state)" running
wait_for "more output than the pipe takes" \
	sh -c "[ \$('$TOP/tests/functional/bare-ask.py' '$CONTROL' stats devices serial0 bytes_out) -gt 100000 ]"
ask stop >/dev/null
ended 0
