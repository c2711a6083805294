#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two VMs of one network: names, addresses, exec in all its ways, copies, console, statistics, end.
# Alone: tests/run vm-basic
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm-lib.sh"

refuse 2 "no --image" wisp vm start a
refuse 1 "no image no-such" wisp vm start a --image no-such
refuse 126 "there is no VM a" wisp vm exec a true

echo "start"
wisp vm start a b --image minimal --cpus sockets=1,cores=2,threads=1 --memory 256M | tee "$TMP/out"
grep -qE '^a: ready at 10\.78\.0\.2, init after [0-9.]+ s, agent after [0-9.]+ s$' "$TMP/out" ||
	fail "boot times of a"
refuse 1 "VM a runs already" wisp vm start a --image minimal
expect names "$(wisp vm list --names | tr '\n' ' ')" "a b "
expect state "$(vm_field a state) $(vm_field a vcpus) $(vm_field a memory)" "running 2 268435456"
expect address "$(vm_field b address)" 10.78.0.3

echo "each knows each"
for vm in a b; do
	expect "name of $vm" "$(wisp vm exec $vm hostname)" $vm
	expect "CPUs of $vm" "$(wisp vm exec $vm nproc)" 2
	expect "hosts of $vm" "$(wisp vm exec $vm -- grep -c '# wisp' /etc/hosts)" 2
	wisp vm exec $vm -- busybox ping -c 1 -W 10 a >/dev/null || fail "$vm does not reach a"
	wisp vm exec $vm -- busybox ping -c 1 -W 10 b >/dev/null || fail "$vm does not reach b"
done
wisp vm exec a -- sh -c '! grep -E "^(virtiofs|fuse) " /proc/modules' ||
	fail "modules for shares without a share"

echo "exec: codes, streams, variables, signals, terminal"
rc=0
wisp vm exec a -- sh -c 'echo out; echo err >&2; exit 7' >"$TMP/out" 2>"$TMP/err" || rc=$?
expect "exit code" $rc 7
expect stdout "$(cat "$TMP/out")" out
expect stderr "$(cat "$TMP/err")" err
rc=0
wisp vm exec a -- sh -c 'kill -KILL $$' || rc=$?
expect killed $rc 137
refuse 126 "no-such-program" wisp vm exec a no-such-program
expect variables "$(wisp vm exec -e A=1 --cwd /tmp a -- sh -c 'echo $A; pwd' | tr '\n' ' ')" "1 /tmp "
expect user "$(wisp vm exec --user nobody a -- id -un)" nobody
expect terminal "$(wisp vm exec --tty a -- tty </dev/null | tr -d '\r')" /dev/pts/0
wisp vm exec a sleep 1000 &
sleep 3
kill -TERM $!
rc=0
wait $! || rc=$?
expect "after SIGTERM" $rc 143

echo "data through and there and back"
head -c 5000000 /dev/urandom >"$TMP/data"
expect "through cat" "$(wisp vm exec a cat <"$TMP/data" | sha256sum)" "$(sha256sum <"$TMP/data")"
mkdir -p "$TMP/tree/below"
cp "$TMP/data" "$TMP/tree/below/"
ln -s below/data "$TMP/tree/link"
wisp vm cp "$TMP/tree" a:/tmp/copy
wisp vm cp a:/tmp/copy "$TMP/back"
diff -r "$TMP/tree" "$TMP/back" || fail "the tree came back changed"
refuse 1 "cannot be a destination" wisp vm cp "$TMP/data" "$TMP/out" a:/no-such-folder
refuse 2 "one side is NAME:PATH" wisp vm cp a:/etc/hosts b:/etc/hosts

echo "a shell and the progress of a copy, on a terminal"
cat >"$TMP/terminal" <<'EOF'
import os, pty, sys
# terminal INPUT TEXT COMMAND...: runs it on a terminal, types INPUT; it must print TEXT
pid, fd = pty.fork()
if not pid:
    os.execvp(sys.argv[3], sys.argv[3:])
os.write(fd, sys.argv[1].encode())
seen = b""
try:
    while data := os.read(fd, 4096):
        seen += data
except OSError:
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
if sys.argv[2].encode() not in seen:
    sys.exit(f"not in {seen!r}: {sys.argv[2]}")
sys.exit(status)
EOF
rc=0
python3 "$TMP/terminal" 'echo $((6 * 7)) $TERM; exit 3
' "42 " wisp vm shell a || rc=$?
expect "exit code of the shell" $rc 3
python3 "$TMP/terminal" "" "1 files, 4.8 MiB" wisp vm cp "$TMP/data" a:/tmp/ || fail "progress"

echo "console"
python3 - <<'EOF' || fail "the console"
import os, pty, select, sys, termios, time
pid, fd = pty.fork()
if not pid:
    os.execvp("wisp", ["wisp", "vm", "console", "a"])
seen = b""
end = time.time() + 60
while b"wisp-agent: ready" not in seen and time.time() < end:
    if select.select([fd], [], [], 1)[0]:
        seen += os.read(fd, 4096)
raw = not termios.tcgetattr(fd)[3] & termios.ICANON
os.write(fd, b"\x1d")
status = os.waitpid(pid, 0)[1]
sys.exit(0 if b"wisp-agent: ready" in seen and raw and not status else 1)
EOF
wisp vm log a | grep -q "wisp-agent: init starts" || fail "the log after a console"

echo "pause, resume, statistics"
wisp vm pause a
expect paused "$(vm_field a state)" paused
wisp vm resume a
expect resumed "$(vm_field a state)" running
wisp vm stats a >"$TMP/out"
grep -q "^hypervisor" "$TMP/out" || fail "statistics as text"
wisp vm stats a --json | python3 -c '
import json, sys
s = json.load(sys.stdin)
assert s["guest"]["hostname"] == "a" and s["guest"]["cpus"] == 2, s["guest"]
assert len(s["stats"]["vcpu_exits"]) == 2, s["stats"]
f = s["footprint"]
assert f["guest_ram"] > 30 << 20 and 0 < f["private"] < 8 << 20 and 0 < f["file"] < 8 << 20, f
' || fail "statistics as JSON"

echo "a third one is known to the two"
wisp vm start c --image minimal --memory 256M --address 10.78.0.77 --vhost off
for vm in a b c; do
	wisp vm exec $vm -- busybox ping -c 1 -W 10 c >/dev/null || fail "$vm does not reach c"
done
expect "c's own address" "$(wisp vm exec c -- ip -o -4 address | grep -c 10.78.0.77/24)" 1

echo "stop"
expect "the gentle way" "$(wisp vm stop a --timeout 60)" "a: powered off by its agent"
wisp vm pause b
expect "paused" "$(wisp vm stop b)" "b: stopped by its hypervisor"
expect "killed" "$(wisp vm stop --kill c)" "c: killed"
refuse 1 "there is no VM a" wisp vm stop a
expect "list" "$(wisp vm list)" ""
expect_nothing_left "after stop"
