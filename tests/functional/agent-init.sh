#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The agent as init of emulated machines: roots of each kind, names, network, limits, orphans,
# power-off and reboot, and a root that is not there.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
for tool in qemu-system-x86_64 mksquashfs mkfs.ext4 busybox; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
vmlinuz=$("$WISP_BUILD/tests/agent-initrd" "$TMP/initrd" "$WISP_BUILD/src/agent/wisp-agent") ||
	skip "there is no kernel"
ldd "$WISP_BUILD/src/agent/wisp-agent" >/dev/null 2>&1 && skip "the agent of this build is not static"

mkdir -p "$TMP/root/bin" "$TMP/root/etc"
cp "$(command -v busybox)" "$TMP/root/bin/busybox"
for tool in sh cat ls ps mount hostname ip touch sleep stty tty; do
	ln -s busybox "$TMP/root/bin/$tool"
done
echo 'root:x:0:0::/root:/bin/sh' >"$TMP/root/etc/passwd"
echo 'started by init' >"$TMP/root/etc/greeting"
printf '#!/bin/sh\ncat /etc/greeting\n' >"$TMP/root/bin/hello"
chmod +x "$TMP/root/bin/hello"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
agent_client="$WISP_BUILD/tests/agent-client tcp:127.0.0.1:$port"

# boot DISK WORDS...: in the background; the console is in $TMP/console.
boot() {
	disk=$1
	shift
	qemu-system-x86_64 -accel tcg -M q35 -cpu max -m 256 -display none -no-reboot \
		-nic none -serial "file:$TMP/console" -kernel "$vmlinuz" -initrd "$TMP/initrd" \
		-netdev "user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:$port-10.0.2.15:1024" \
		-device virtio-net-pci,netdev=n,mac=02:00:5e:00:53:01 \
		-drive "file=$disk,if=virtio,format=raw,readonly=on" \
		-append "console=ttyS0 panic=-1 quiet mitigations=off $*" &
	QEMU=$!
	at_exit "{ kill $QEMU && wait $QEMU; } 2>/dev/null || :"
}

boot_root() {
	boot "$1" wisp.root=/dev/vda wisp.name=guest wisp.hosts=guest=10.0.2.15,other=10.0.2.99 \
		wisp.net=02:00:5e:00:53:01,10.0.2.15/24,10.0.2.2 wisp.dns=10.0.2.3 wisp.exec=/bin/hello \
		wisp.listen=tcp:10.0.2.15:1024,from=10.0.2.2
	agent wait 120000
}

ended() {
	wait_for 60 gone $QEMU
	wait $QEMU || fail "QEMU failed"
}

mksquashfs "$TMP/root" "$TMP/squashfs" -quiet -no-progress >/dev/null
boot_root "$TMP/squashfs"
grep -q "^wisp-agent: init starts" "$TMP/console" || fail "no first line"
grep -q "^wisp-agent: ready in [0-9]* ms" "$TMP/console" || fail "no second line"
expect "name" "$(agent exec hostname)" guest
agent exec cat /etc/hosts | grep -q "^10.0.2.99	other	# wisp" || fail "hosts"
agent exec cat /etc/resolv.conf | grep -qx "nameserver 10.0.2.3" || fail "name servers"
agent exec ip route | grep -q "default via 10.0.2.2" || fail "gateway"
agent exec mount >"$TMP/mounts"
for line in "wisp on / type overlay" "devpts on /dev/pts" "tmpfs on /dev/shm" "tmpfs on /run" \
	"tmpfs on /tmp" "cgroup2 on /sys/fs/cgroup" "proc on /proc" "devtmpfs on /dev"; do
	grep -q "$line" "$TMP/mounts" || fail "not mounted: $line"
done
expect "root can be written" "$(agent exec sh -c 'echo a >/new && cat /new')" a
expect "the initrd is gone" "$(agent exec ls /)" "bin
dev
etc
new
proc
run
sys
tmp"
expect "terminal" "$(agent exec -n -t sh -c 'stty size; tty' | tr -d '\r')" "24 80
/dev/pts/0"
expect "locked memory" "$(agent exec sh -c 'ulimit -l')" unlimited
expect "open files" "$(agent exec sh -c 'ulimit -n')" 8192
grep -q "started by init" "$TMP/console" || fail "wisp.exec did not run"
agent exec cat /run/wisp/facts | grep -q '"ready_ms"' || fail "no facts"
agent exec sh -c '(sleep 0.2 &) & exit 0'
sleep 1
agent exec ps | grep -q '\[sleep\]' && fail "an orphan was not reaped"
agent call '{"op":"configure","hostname":"renamed","hosts":[{"name":"x","address":"10.0.2.50"}],
	"clock":1000000000000000000}' >/dev/null
expect "renamed" "$(agent exec hostname)" renamed
agent exec cat /etc/hosts | grep -q other && fail "old hosts stayed"
case $(agent exec busybox date -u +%Y-%m-%d) in
2001-09-09) ;;
*) fail "the clock was not set" ;;
esac
# A program that ignores SIGTERM does not keep the machine up.
$agent_client exec sh -c 'trap "" TERM; while :; do sleep 1; done' >"$TMP/out" &
agent call '{"op":"poweroff"}' >/dev/null
ended
grep -q "Power down" "$TMP/console" || fail "no power-off"

mkfs.ext4 -q -d "$TMP/root" "$TMP/ext4" 32M
boot_root "$TMP/ext4"
agent exec cat /etc/greeting >/dev/null
agent call '{"op":"reboot"}' >/dev/null
ended
grep -q "rebooting" "$TMP/console" || fail "no reboot"

# Not there: it says so after its time, and the kernel ends.
boot "$TMP/squashfs" wisp.root=/dev/nosuch
wait_for 120 gone $QEMU
wait $QEMU || :
grep -q "not there after 30 s: cannot open root device /dev/nosuch" "$TMP/console" ||
	fail "no reason for a missing root"
