# SPDX-License-Identifier: Apache-2.0
# For tests of networks on several nodes: . "$(dirname "$0")/network-lib.sh" after lib.sh. A node is
# a network namespace of its own, with its own WISP_RUN, on a bridge with the others; its VMs are
# bare guests. Needs root.
[ "$(id -u)" = 0 ] || skip "needs root, for network namespaces"
[ -w /dev/kvm ] || skip "needs /dev/kvm"
modprobe vxlan 2>/dev/null || :
GUEST=$WISP_BUILD/tests/bare/guest.elf
SPACE=wt$$
wisp image build -q "$TOP/images/minimal.yaml" -o minimal
[ -d /run/netns ] || at_exit '{ umount /run/netns && rmdir /run/netns; } 2>/dev/null || :'
NODES='' SPACES="$SPACE-lan"
at_exit 'for s in $SPACES; do ip netns del $s; done'
at_exit 'for n in $NODES; do on $n wisp vm stop --all --kill >/dev/null 2>&1; done'
ip netns add "$SPACE-lan"
ip -n "$SPACE-lan" link add lan type bridge
ip -n "$SPACE-lan" link set lan up

# on NODE COMMAND...
on() {
	on_node=$1
	shift
	WISP_RUN=$TMP/$on_node ip netns exec "$SPACE-$on_node" "$@"
}

# add_node NAME ADDRESS
add_node() {
	ip netns add "$SPACE-$1"
	NODES="$NODES $1" SPACES="$SPACES $SPACE-$1"
	ip link add "$1" netns "$SPACE-lan" type veth peer name eth0 netns "$SPACE-$1"
	ip -n "$SPACE-lan" link set "$1" master lan up
	ip -n "$SPACE-$1" addr add "$2/24" dev eth0
	ip -n "$SPACE-$1" link set eth0 up
	ip -n "$SPACE-$1" link set lo up
}

# start NODE VM [OPTION...]: a bare guest that computes for ever
start() {
	start_node=$1 start_vm=$2
	shift 2
	on "$start_node" wisp vm start "$start_vm" --image minimal --kernel "$GUEST" --force --no-wait \
		--cmdline-add "spin" --memory 64M "$@" >/dev/null
}

# keeper NODE [NETWORK]: the process
keeper() {
	for keeper_p in $(grep -lzxF "WISP_RUN=$TMP/$1" /proc/[0-9]*/environ 2>/dev/null); do
		keeper_p=${keeper_p%/environ}
		[ "$(cat "$keeper_p/comm")" = wisp-keeper ] || continue
		if ls -l "$keeper_p/fd" 2>/dev/null | grep -q "/net/${2:-default}/lock"; then
			echo "${keeper_p#/proc/}"
			return
		fi
	done
}

# in_net NODE COMMAND...: in the network namespace of its network
in_net() {
	in_net_node=$1
	shift
	nsenter -t "$(keeper "$in_net_node")" -n "$@"
}

# add_end NAME NODE ADDRESS [NETWORK]: a namespace on the bridge of the node's network, like a VM
add_end() {
	ip netns add "$SPACE-$1"
	SPACES="$SPACES $SPACE-$1"
	add_end_keeper=$(keeper "$2" ${4:+"$4"})
	ip link add eth0 netns "$SPACE-$1" type veth peer name "end-$1"
	ip link set "end-$1" netns "$add_end_keeper"
	nsenter -t "$add_end_keeper" -n ip link set "end-$1" master wisp0 up
	ip -n "$SPACE-$1" addr add "$3/24" dev eth0
	ip -n "$SPACE-$1" link set eth0 up
}

# field NODE NETWORK KEY: of wisp network show --json, lists with spaces
field() {
	on "$1" wisp network show "$2" --json | python3 -c '
import json, sys
value = json.load(sys.stdin)[sys.argv[1]]
print(*(value if isinstance(value, list) else [value]))' "$3"
}

# command_of NODE WORDS: the process whose command line has these words after the program
command_of() {
	for command_p in $(grep -lzxF "WISP_RUN=$TMP/$1" /proc/[0-9]*/environ 2>/dev/null); do
		command_p=${command_p%/environ}
		case $(tr '\0' ' ' <"$command_p/cmdline" 2>/dev/null) in
		*"/wisp $2 "* | *"/wisp-mover $2 "*)
			echo "${command_p#/proc/}"
			return
			;;
		esac
	done
}
# mover NODE send|receive: its process
mover() {
	command_of "$1" "$2"
}

# place NODE: the names of its VMs
place() {
	on "$1" wisp vm list --names 2>/dev/null
}

# rounds NODE: how often VM a, which works, has gone through its memory since it came
rounds() {
	tr -cd . 2>/dev/null <"$TMP/$1/vm/a/console" | wc -c
}
# goes_on NODE: VM a goes through its memory
goes_on() {
	! grep -q lost "$TMP/$1/vm/a/console" || fail "its memory has changed"
	before=$(rounds "$1")
	for i in $(seq 100); do
		[ "$(rounds "$1")" -le "$before" ] || return 0
		sleep 0.1
	done
	fail "it stands still on $1"
}
# nothing NODE: no VM, no network
nothing() {
	for i in $(seq 100); do
		[ -n "$(place "$1")" ] || [ -n "$(on "$1" wisp network list --names)" ] || return 0
		sleep 0.1
	done
	fail "left on $1: $(place "$1") $(on "$1" wisp network list)"
}
