#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Programs run by the agent: codes, streams, signals, terminals, users, and clients that die.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agent-lib.sh"
agent_start

code() {
	rc=0
	"$@" >"$TMP/out" 2>"$TMP/err" || rc=$?
	echo $rc
}

# Exit codes: each one, and signals as a shell tells them.
for i in $(seq 0 255); do
	expect "exit $i" "$(code agent exec sh -c "exit $i")" "$i"
done
for s in 1 2 3 9 10 15 34; do
	expect "killed by signal $s" "$(code agent exec sh -c "kill -$s \$\$")" $((128 + s))
done

# The streams are kept apart; an empty and a binary stdin.
expect "both streams" "$(code agent exec sh -c 'echo out; echo err >&2')" 0
expect stdout "$(cat "$TMP/out")" out
expect stderr "$(cat "$TMP/err")" err
expect "no stdin" "$(agent exec -n wc -c)" 0
expect "closed stdin" "$(agent exec wc -c <&-)" 0
head -c 300000 /dev/urandom >"$TMP/binary"
agent exec cat <"$TMP/binary" | cmp - "$TMP/binary" || fail "bytes changed on their way"

# Where, with what and who.
expect "working directory" "$(agent exec -d /usr pwd)" /usr
expect "environment" "$(agent exec -e A='x y' -e B= sh -c 'echo "[$A][$B]"')" "[x y][]"
expect "PATH is searched" "$(agent exec -e PATH="$TMP/bin:/usr/bin:/bin" sh -c 'echo $PATH')" \
	"$TMP/bin:/usr/bin:/bin"
expect "shell words" "$(agent exec -s echo '$((6 * 7))' '&&' echo a)" "42
a"
if [ "$(id -u)" = 0 ]; then
	expect "user by name" "$(agent exec -u nobody id -un)" nobody
	expect "user by number" "$(agent exec -u 65534 sh -c 'id -u; id -g')" "65534
65534"
	expect "user without a line in passwd" "$(agent exec -u 54321 id -u)" 54321
fi
refuse 255 'no user "nosuch"' agent exec -u nosuch id
refuse 255 "cannot run nosuch: No such file" agent exec nosuch
refuse 255 "cannot run /: Permission denied" agent exec /
refuse 255 "cannot change to directory /nosuch: No such file" agent exec -d /nosuch id

# shown PATTERN: waits until the client in the background shows it; before it is started,
# "$TMP/out" must be away, as what the one before it wrote is no sign of this one.
shown() {
	wait_for 30 grep -qs "$1" "$TMP/out"
}

# Signals to the client go to the program; one that handles it decides its code.
rm -f "$TMP/out"
$agent_client exec sh -c 'trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done' >"$TMP/out" &
client=$!
shown ready
kill -TERM $client
rc=0
wait $client || rc=$?
expect "SIGTERM handled by the program" $rc 3
rm -f "$TMP/out"
$agent_client exec sh -c 'echo ready; exec sleep 1000' >"$TMP/out" &
client=$!
shown ready
kill -TERM $client
rc=0
wait $client || rc=$?
expect "SIGTERM" $rc 143

# A signal gets through although the program leaves its full stdin unread.
rm -f "$TMP/out"
$agent_client exec sh -c 'echo ready; exec sleep 1000' <"/dev/zero" >"$TMP/out" &
client=$!
shown ready
sleep 0.5
kill -USR1 $client
rc=0
wait $client || rc=$?
expect "SIGUSR1 beside a blocked stdin" $rc 138

# A reader that stopped stops its own program and nobody else.
mkfifo "$TMP/slow"
$agent_client exec cat /dev/zero >"$TMP/slow" &
client=$!
exec 9<"$TMP/slow"
sleep 0.3
expect "beside a blocked program" "$(agent exec echo works)" works
exec 9<&-
wait $client && fail "a client whose reader went has code 0"

# What a program left behind does not hold the session.
start=$(date +%s)
agent exec sh -c 'sleep 30 & echo $!' >"$TMP/left"
[ $(($(date +%s) - start)) -lt 20 ] || fail "a background process held the session"
kill -0 "$(cat "$TMP/left")" || fail "the background process did not live on"
kill "$(cat "$TMP/left")"
agent exec sh -c 'yes & echo $!' | head -n 1 >"$TMP/left" || :
wait_for 10 gone "$(head -n 1 "$TMP/left")"

# Terminals: size, name, the end of input, signals typed.
expect "no terminal" "$(code agent exec sh -c '[ -t 0 ]')" 1
expect "terminal" "$(agent exec -n -t sh -c '[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && stty size' |
	tr -d '\r')" "24 80"
expect "^C" "$(printf '\003' | code agent exec -t sleep 30)" 130
expect "end of input" "$(printf 'a\nb\n' | agent exec -t wc -l | tail -n 1 | tr -d '\r ')" 2
expect "last words" "$(agent exec -n -t seq 1 20000 | tail -n 1 | tr -d '\r')" 20000

# A client that is killed takes its program along: SIGHUP, and SIGKILL for the deaf.
rm -f "$TMP/out"
$agent_client exec sh -c 'trap "echo got >'"$TMP/hup"'; exit" HUP; echo ready
	while :; do sleep 0.1; done' >"$TMP/out" &
client=$!
shown ready
kill -KILL $client
wait $client || :
wait_for 10 test -e "$TMP/hup"
rm -f "$TMP/out"
$agent_client exec sh -c 'trap "" HUP; echo $$; exec sleep 1000' >"$TMP/out" &
client=$!
shown .
kill -KILL $client
wait $client || :
wait_for 20 gone "$(cat "$TMP/out")"

# Facts.
agent facts >"$TMP/facts"
for key in agent protocol hostname kernel cpus memory uptime load addresses; do
	grep -q "\"$key\":" "$TMP/facts" || fail "facts do not tell $key"
done
refuse 255 "does not know" agent call '{"op":"nosuch"}'
refuse 255 "no \"op\"" agent call '{}'

# An agent that comes back is found again; another's live socket is not taken.
refuse 1 "Address already in use" "$WISP_BUILD/src/agent/wisp-agent" --listen "unix:$TMP/agent"
kill -KILL "$AGENT"
wait "$AGENT" || :
agent_start
expect "after a restart" "$(agent exec echo again)" again
