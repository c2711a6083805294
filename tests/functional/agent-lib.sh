# SPDX-License-Identifier: Apache-2.0
# For the agent's tests, after lib.sh: agent_start [OPTIONS] runs wisp-agent as a service on a
# UNIX socket, with its pid in $AGENT; agent COMMAND... is a session with it. In the background
# use $agent_client, so that $! is the client itself.
agent_client="$WISP_BUILD/tests/agent-client unix:$TMP/agent"

agent_start() {
	"$WISP_BUILD/src/agent/wisp-agent" --listen "unix:$TMP/agent" "$@" 2>>"$TMP/agent.log" &
	AGENT=$!
	at_exit "{ kill $AGENT && wait $AGENT; } 2>/dev/null || :"
	agent wait 10000
}

agent() {
	$agent_client "$@"
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
	wait_left=$(($1 * 10))
	shift
	until "$@"; do
		wait_left=$((wait_left - 1))
		[ $wait_left -gt 0 ] || fail "waited in vain for: $*"
		sleep 0.1
	done
}

gone() {
	! kill -0 "$1" 2>/dev/null
}

fd_count() {
	ls "/proc/$AGENT/fd" | wc -l
}
