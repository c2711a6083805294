#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Networks of VMs on several nodes are one: linked, heard of, isolated, full frames, unlinked.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/network-lib.sh"
traffic() {
	timeout 60 python3 "$TOP/tests/functional/network-ends.py" "$SPACE-$1" "$SPACE-$2" "$3" "$4"
}

# broadcast FROM: frames to everybody
broadcast() {
	ip netns exec "$SPACE-$1" python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for i in range(100):
    s.sendto(b"x", ("10.78.0.255", 9))'
}

# flood FROM TO VNI: frames that pretend to come from 230 nodes, and 20000 guests of one of them
flood() {
	on "$1" python3 - "$2" "$3" <<'EOF'
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
vxlan = struct.pack("!II", 8 << 24, int(sys.argv[2]) << 8)
def frame(node, mac):
    inner = b"\xff" * 6 + struct.pack("!HI", 0x0657, mac) + b"\x88\xb5" + bytes(46)
    udp = struct.pack("!HHHH", 4789, 4789, 8 + len(vxlan) + len(inner), 0) + vxlan + inner
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                     socket.inet_aton(f"192.168.50.{node}"), socket.inet_aton(sys.argv[1]))
    s.sendto(ip + udp, (sys.argv[1], 0))
for node in range(20, 250):
    frame(node, node)
for mac in range(1000, 21000):
    frame(20, mac)
EOF
}

add_node n1 192.168.50.1
add_node n2 192.168.50.2
add_node n3 192.168.50.3
start n1 a
id=$(field n1 default id)

echo "what is refused"
refuse 2 "give a network and the addresses" on n1 wisp network link default
refuse 1 "there is no network other" on n1 wisp network link other 192.168.50.2
refuse 1 "\"n2\" is not the IPv4 address of a node" on n1 wisp network link default n2
refuse 1 "192.168.50.9 is no IPv4 address of this machine" \
	on n1 wisp network link default --local 192.168.50.9 192.168.50.2
start n3 z
refuse 1 "network default exists here and is another one" \
	on n3 wisp network link default --id "$id" 192.168.50.1
refuse 1 "is not the identity of a network" on n2 wisp network link default --id 12 192.168.50.1

echo "linked"
on n1 wisp network link default 192.168.50.2
on n2 wisp network link default --id "$id" 192.168.50.1
start n2 b --address 10.78.0.9
expect "one identity" "$(field n2 default id)" "$id"
expect "nodes of the second" "$(field n2 default nodes)" "192.168.50.2 192.168.50.1"
grep -q '"192.168.50.2"' "$TMP/n1/vm/a/vm.json" || fail "vm.json does not know the nodes"
grep -q "\"network_id\": \"$id\"" "$TMP/n2/vm/b/vm.json" || fail "vm.json has no identity"
on n1 wisp network list | grep -q "linked: 192.168.50.1 to 192.168.50.2" || fail "list"
add_end e1 n1 10.78.0.101
add_end e2 n2 10.78.0.102
traffic e1 e2 10.78.0.102 small
traffic e2 e1 10.78.0.101 large
traffic e1 e2 10.78.0.102 tcp

echo "a third node that knows one of them is soon known by all"
on n3 wisp vm stop z --kill >/dev/null
on n3 wisp network link default --id "$id" 192.168.50.1 192.168.50.2
start n3 c --address 10.78.0.19
add_end e3 n3 10.78.0.103
traffic e3 e1 10.78.0.101 small
traffic e3 e2 10.78.0.102 small
traffic e1 e3 10.78.0.103 tcp
expect "nodes of the first" "$(field n1 default nodes)" "192.168.50.1 192.168.50.2 192.168.50.3"

echo "another network between the same nodes hears nothing of it"
start n1 x --net other
other=$(field n1 other id)
on n1 wisp network link other 192.168.50.2
on n2 wisp network link other --id "$other" 192.168.50.1
start n2 y --net other
add_end o1 n1 10.78.0.111 other
add_end o2 n2 10.78.0.102 other
traffic o1 o2 10.78.0.102 small
in_other=$(keeper n2 other)
# What its bridge has sent to the end there.
frames() {
	nsenter -t "$in_other" -n ip -s -j link show end-o2 | python3 -c '
import json, sys
print(json.load(sys.stdin)[0]["stats64"]["tx"]["packets"])'
}
before=$(frames)
! traffic e1 o1 10.78.0.111 small 2>/dev/null || fail "a network reaches another"
! traffic o1 e1 10.78.0.101 small 2>/dev/null || fail "a network reaches another"
broadcast e1
sleep 1
[ $(($(frames) - before)) -lt 50 ] || fail "frames of one network came to another"

echo "unlinked, and not heard of again though it sends"
on n2 wisp network unlink default 192.168.50.1
add_end e4 n1 10.78.0.104
broadcast e4
sleep 0.5
expect "nodes after unlink" "$(field n2 default nodes)" "192.168.50.2 192.168.50.3"
on n2 wisp network link default 192.168.50.1
expect "linked again" "$(field n2 default nodes)" "192.168.50.2 192.168.50.3 192.168.50.1"
traffic e1 e2 10.78.0.102 small
on n2 wisp network unlink default 192.168.50.1
on n1 wisp network unlink default
expect "nodes after unlink" "$(field n1 default nodes)" ""
expect "the other keeps the third" "$(field n2 default nodes)" "192.168.50.2 192.168.50.3"
! traffic e1 e2 10.78.0.102 small 2>/dev/null || fail "unlinked, and yet there"
traffic e3 e2 10.78.0.102 small

echo "frames that anybody can send make no end of nodes and addresses"
vni=$(($(field n2 default vni)))
flood n1 192.168.50.2 "$vni"
sleep 4
nodes=$(field n2 default nodes | wc -w)
[ "$nodes" -gt 20 ] || fail "the frames did not arrive: $nodes nodes"
[ "$nodes" -le 131 ] || fail "$nodes nodes are believed"
# "self" is what the device itself knows, the others the bridge.
in_net n2 bridge fdb show dev nodes >"$TMP/learned"
learned=$(grep -c self "$TMP/learned")
[ "$learned" -gt 1000 ] || fail "the frames did not arrive: $learned addresses"
[ "$learned" -le 8600 ] || fail "$learned addresses were learned"
learned=$(grep -vc self "$TMP/learned")
case $(uname -r) in
[1-5].* | 6.[0-7].*) echo "left out: the limit of the bridge (Linux 6.8)" ;;
*) [ "$learned" -le 16500 ] || fail "the bridge learned $learned addresses" ;;
esac
on n2 wisp network link default 192.168.50.1
field n2 default nodes | grep -q "192.168.50.1\$" || fail "no room for a node that is told"

echo "nothing is left when the networks end"
for n in n1 n2 n3; do
	on $n wisp vm stop --all --kill >/dev/null
	expect "networks of $n" "$(on $n wisp network list)" ""
done
