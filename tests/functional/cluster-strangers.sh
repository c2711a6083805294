#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Clusters of two users at once on the same two nodes, with Linux guests: frames of every kind from one's VMs (forged
# ones, too) are seen nowhere but in its own network; files, sockets, processes, VMs and checkpoints are its user's alone.
# As cluster-isolation, by the programs that users have, and with another kernel. Alone: tests/run cluster-strangers
# shellcheck disable=SC2034 # cluster-lib.sh's
CLUSTER_NODES=2
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/cluster-lib.sh"
NODES=node1,node2@10.77.0.3
TESTS=$TOP/tests/functional
mkdir -p "$SHARED"
cat >"$SHARED/env.yaml" <<'END'
vms: 2
vms-per-node: 1
memory: 192M
END
cluster_image "$TOP/images/mpi.yaml" mpi
start_cluster_lab ann bob

# Of a user's cluster: its ID, number of VXLAN; a user's run folder at all nodes
id_of() {
	as "$1" node1 wisp cluster show "c$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'
}
vni_of() {
	on node1 nsenter --net="/run/wisp/node/net/$1" ip -d -j link show type vxlan |
		python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["linkinfo"]["info_data"]["id"])'
}
folder_of() {
	echo "/run/wisp/user/$(on node1 id -u "$1")"
}
# mark USER: what frames of the user's VMs have in them, in hexadecimal
mark() {
	printf %s "wisp-mark-of-$1" | od -An -tx1 | tr -d ' \n'
}
# For guests, which have perl but no Python: sends what frames.py makes, and says how many it were.
# shellcheck disable=SC2016
SEND='socket(my $s, 17, 3, 0) or die $!;
open my $i, "<", "/sys/class/net/eth0/ifindex" or die $!;
my ($n, $to) = (0, pack "S n i S C C a8", 17, 0, scalar <$i>, 0, 0, 6, "");
while (read(STDIN, my $length, 2) == 2) {
	read STDIN, my $frame, unpack "n", $length;
	send($s, $frame, 0, $to) and $n++;
}
print "$n\n";'
# listen NODE PLACE [COMMAND...]: counts marked frames there, into $SHARED/PLACE-NODE
listen() {
	listen_node=$1 listen_place=$2
	shift 2
	on "$listen_node" "$@" python3 "$TESTS/listen.py" "$SHARED/over" "$marks" \
		>"$SHARED/$listen_place-$listen_node" 2>"$SHARED/$listen_place-$listen_node.log" &
}
# heard FILE EXPRESSION: of "c", what was counted there (a mark in no frame counts 0)
heard() {
	python3 -c 'import collections, json, sys
c = collections.Counter(json.load(open(sys.argv[1])))
sys.exit(not eval(sys.argv[2]))' "$SHARED/$1" "$2" || fail "$1, not $2: $(cat "$SHARED/$1")"
}

echo "two clusters of two VMs on two nodes"
for user in ann bob; do
	as "$user" node1 wisp run -q -d --nodes "$NODES" --name "c$user" --image mpi "$SHARED/env.yaml" -- sleep 1000
done
id_ann=$(id_of ann) id_bob=$(id_of bob)
vni_ann=$(vni_of "$id_ann") vni_bob=$(vni_of "$id_bob")
[ "$vni_ann" != "$vni_bob" ] || fail "both have VXLAN number $vni_ann"

echo "frames of each from each VM; who hears them"
marks="$vni_ann=$(mark ann),$vni_bob=$(mark bob)"
for node in node1 node2; do
	listen "$node" host
	listen "$node" ann nsenter --net="/run/wisp/node/net/$id_ann"
	listen "$node" bob nsenter --net="/run/wisp/node/net/$id_bob"
done
for place in host ann bob; do
	for node in node1 node2; do
		wait_for 60 grep -q ready "$SHARED/$place-$node.log" || fail "nobody listens at $node"
	done
done
macs=$(for user in ann bob; do
	for k in 0 1; do as "$user" node1 wisp cluster exec "c$user-$k" -- cat /sys/class/net/eth0/address; done
done | sort -u)
macs=$(for node in node1 node2; do on "$node" cat /sys/class/net/eth0/address; done; echo "$macs")
macs=$(echo "$macs" | tr '\n' , | sed 's/,$//')
sent=0
for user in ann bob; do
	python3 "$TESTS/frames.py" "wisp-mark-of-$user" "$vni_ann,$vni_bob" \
		"10.78.0.2,10.78.0.3,10.78.0.1,10.77.0.2,10.77.0.3,127.0.0.1" "$macs" >"$SHARED/frames-$user"
	for k in 0 1; do
		# shellcheck disable=SC2016
		by=$(as "$user" node1 sh -c 'exec wisp cluster exec "$1" -- perl -e "$2" <"$3"' sh \
			"c$user-$k" "$SEND" "$SHARED/frames-$user")
		[ "$by" -gt 100 ] || fail "c$user-$k sends $by frames"
		sent=$((sent + by))
	done
done
sleep 2
touch "$SHARED/over"
wait
for node in node1 node2; do
	for place in ann bob host; do echo "$node, $place: $(cat "$SHARED/$place-$node")"; done
	for user in ann bob; do
		[ "$user" = ann ] && own=$vni_ann other=$vni_bob || own=$vni_bob other=$vni_ann
		heard "$user-$node" "c['$own plain'] > 100 and c['dropped'] == 0"
		heard "$user-$node" "not any(what.startswith('$other ') for what in c)"
		heard "host-$node" "c['$own carried'] > 100 and c['dropped'] == 0"
		heard "host-$node" "c['$own plain'] == 0 and c['$own astray'] == 0"
	done
done

echo "connections from a VM to the nodes and what they serve"
on node2 bash -c 'echo >/dev/tcp/10.77.0.2/7450' || fail "node1 does not listen for node2"
as ann node1 wisp cluster exec cann -- ip route add default dev eth0
for address in 10.77.0.2 10.77.0.3 10.78.0.1; do
	! as ann node1 wisp cluster exec cann -- timeout 5 bash -c "echo >/dev/tcp/$address/7450" 2>/dev/null ||
		fail "a VM reaches $address"
done

echo "commands for another user's cluster"
for command in show logs attach stop suspend; do
	refuse 1 cann as bob node1 wisp cluster "$command" cann
done
refuse 126 cann as bob node1 wisp cluster exec cann -- true
refuse 1 cann as bob node1 wisp cluster checkpoint cann --to /tmp
expect "what bob is told of" "$(as bob node1 wisp cluster list --names)" cbob
expect "at the other node, too" "$(as bob node2 wisp node list --json | grep -c "$id_ann")" 0

echo "files, sockets and processes"
for user in ann bob; do
	on node1 install -d -o "$user" "$SHARED/saved-$user"
	as "$user" node1 wisp cluster checkpoint "c$user" --to "$SHARED/saved-$user" --live
done
for user in ann bob; do
	[ "$user" = ann ] && other=bob id=$id_ann || other=ann id=$id_bob
	for node in node1 node2; do
		on "$node" python3 "$TESTS/stranger.py" "$user" "$other" "$(folder_of "$user")" "/run/wisp/node/net/$id" \
			"$SHARED/saved-$user" || fail "$other at $node"
	done
done
echo "isolation: $sent frames sent, 0 heard by the other's VMs or at a node; no way to files, sockets, processes"

for user in ann bob; do
	as "$user" node1 wisp cluster stop "c$user"
done
