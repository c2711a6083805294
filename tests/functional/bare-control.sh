#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The control socket of a running machine: pausing, counting, console, stopping; signals; what a
# killed machine leaves behind does not hinder the next.
. "$(dirname "$0")/bare-lib.sh"

# The size of the output: the guest prints a dot a round.
rounds() {
	stat -c %s "$TMP/out"
}

grows() {
	[ "$(rounds)" -gt "$1" ]
}

start "dirty=8" -m 64 -c 4 --name c1 --log-level info
expect "name" "$(ask status name)" c1
expect "state" "$(ask status state)" running
expect "vcpus" "$(ask status vcpus)" 4
expect "memory" "$(ask status memory)" 67108864
expect "pid" "$(ask status pid)" "$vm"
expect "mode" "$(stat -c %a "$CONTROL")" 600
wait_for "output" grows 0

# Paused is paused: no guest instruction, no output; again and again.
ask pause >/dev/null
expect "state" "$(ask status state)" paused
before=$(rounds)
sleep 0.3
expect "output while paused" "$(rounds)" "$before"
ask pause >/dev/null
ask resume >/dev/null
expect "state" "$(ask status state)" running
wait_for "output after resume" grows "$before"
python3 - "$CONTROL" <<'END' || fail "many pauses"
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[1])
f = s.makefile("rb")
for i in range(500):
    s.sendall(b'{"command": "pause"}\n{"command": "resume"}\n')
    assert json.loads(f.readline())["ok"] and json.loads(f.readline())["ok"]
END
wait_for "output after 500 pauses" grows "$(rounds)"

before=$(ask stats vcpu_exits 0 pio)
wait_for "more exits" sh -c "[ \$('$TOP/tests/functional/bare-ask.py' '$CONTROL' stats vcpu_exits 0 pio) -gt $before ]"
expect "exits of a vCPU that nobody started" "$(ask stats vcpu_exits 3 pio)" 0
ask power-button >/dev/null
ask log-level level=error >/dev/null
expect "log level" "$(ask status log_level)" error
expect "unknown command" "$(ask fly || true)" 'there is no command "fly"'
expect "console on stdio" "$(ask console || true)" \
	"the console is on the VMM's standard input and output"

# A second machine may not take the socket, and leaves it alone.
refuse 1 "cannot listen on $CONTROL: Address already in use" \
	wisp-vmm -k "$GUEST" -a off --control "$CONTROL" -s none
expect "state" "$(ask status state)" running
ask pause >/dev/null
ask stop >/dev/null
ended 0
[ ! -e "$CONTROL" ] || fail "the socket is left"

for signal in TERM INT HUP; do
	start "spin"
	kill -$signal "$vm"
	ended 0
	[ ! -e "$CONTROL" ] || fail "SIG$signal: the socket is left"
done

# Killed: the socket stays, and the next machine takes it.
start "dirty=8" -m 64
kill -9 "$vm"
ended 137
[ -S "$CONTROL" ] || fail "where is the socket of the killed VMM?"
expect "the socket of a dead VMM" "$(ask status 2>&1 | tail -n 1)" \
	"ConnectionRefusedError: [Errno 111] Connection refused"
wisp-vmm -k "$GUEST" -a spin --control "$CONTROL" -s none </dev/null &
vm=$!
wait_for "the second machine" sh -c "'$TOP/tests/functional/bare-ask.py' '$CONTROL' status >/dev/null 2>&1"
ask stop >/dev/null
ended 0

# The console by a socket of its own, and by the control socket.
start "say=early echo off" -s "socket=$TMP/console"
expect "console" "$(python3 - "$TMP/console" <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
text = b""
while b"echo\n" not in text:
    text += s.recv(100)
s.sendall(b"typed" * 30 + b"q")
while piece := s.recv(100):
    text += piece
print(text.decode(), end="")
END
)" "early
echo
$(for i in $(seq 30); do printf typed; done)q"
ended 0
start "say=early echo off" -s none
expect "console by the control socket" "$(python3 - "$CONTROL" <<'END'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
s.sendall(b'{"command": "console"}\n')
f = s.makefile("rb")
assert json.loads(f.readline())["ok"]
assert f.readline() + f.readline() == b"early\necho\n"
s.sendall(b"q")
print(f.readline().decode(), end="")
END
)" "q"
ended 0
