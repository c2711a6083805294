#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The way out of clusters' networks: who reaches what, as whom, and what is left. Two nodes, with a
# world behind the first, are namespaces; VMs are ends of cables in the bridges of their clusters.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, for network namespaces"
command -v nft >/dev/null || skip "needs nft (nftables)"
modprobe -a vxlan veth nf_tables 2>/dev/null || :
SPACE=wo$$
SPACES=''
[ -d /run/netns ] || at_exit '{ umount /run/netns && rmdir /run/netns; } 2>/dev/null || :'
at_exit 'for s in $SPACES; do ip netns del $SPACE-$s; done'

# space NAME: a machine
space() {
	ip netns add "$SPACE-$1"
	SPACES="$SPACES $1"
	ip -n "$SPACE-$1" link set lo up
}

# on NAME COMMAND...: in its network alone, so that what the helper mounts is seen here
on() {
	on_name=$1
	shift
	nsenter "--net=/run/netns/$SPACE-$on_name" "$@"
}

# cable A ADDRESS B ADDRESS: both ends are named after the other one
cable() {
	ip link add "$3" netns "$SPACE-$1" type veth peer name "$1" netns "$SPACE-$3"
	ip -n "$SPACE-$1" addr add "$2/24" dev "$3"
	ip -n "$SPACE-$3" addr add "$4/24" dev "$1"
	ip -n "$SPACE-$1" link set "$3" up
	ip -n "$SPACE-$3" link set "$1" up
}

# job NODE JSON: what the daemon has its helper do; the answer
job() {
	printf '%s\n' "$2" | on "$1" "$WISP_BUILD/src/node/wisp-node-helper"
}
at_exit 'for n in $TMP/net-*; do
	job n1 "{\"op\": \"clean\", \"cluster\": \"x\", \"network\": \"$n\"}" >/dev/null
done'

# network NODE CLUSTER VNI MORE: the cluster's network there
network() {
	job "$1" "{\"op\": \"network-make\", \"path\": \"$TMP/net-$1-$2\", \"vni\": $3,
		\"user\": 0, \"taps\": []$4}" | tr -d '\n'
}

# vm NAME NODE CLUSTER ADDRESS
vm() {
	space "$1"
	ip link add eth0 netns "$SPACE-$1" type veth peer name "$1" netns "$TMP/net-$2-$3"
	nsenter "--net=$TMP/net-$2-$3" ip link set "$1" master wisp0 up
	ip -n "$SPACE-$1" addr add "$4/24" dev eth0
	ip -n "$SPACE-$1" link set eth0 up
	ip -n "$SPACE-$1" route add default via 10.78.0.1
}

# serve NAME PORT: tells who calls, by TCP and UDP, their address and port
serve() {
	cat >"$TMP/serve.py" <<'END'
import selectors, socket, sys
port = int(sys.argv[1])
tcp = socket.create_server(("", port))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", port))
wait = selectors.DefaultSelector()
for s in tcp, udp:
    wait.register(s, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in wait.select():
        if key.fileobj is tcp:
            c, who = tcp.accept()
            c.sendall(f"{who[0]} {who[1]}".encode())
            c.close()
        else:
            _, who = udp.recvfrom(100)
            udp.sendto(f"{who[0]} {who[1]}".encode(), who)
END
	nsenter "--net=/run/netns/$SPACE-$1" python3 "$TMP/serve.py" "$2" >"$TMP/serve-$1-$2" &
	at_exit "kill $!"
	for i in $(seq 100); do
		! grep -q ready "$TMP/serve-$1-$2" || return 0
		sleep 0.1
	done
	fail "no server in $1"
}

# call NAME tcp|udp ADDRESS PORT [OWN]: from port OWN; what is said there, or nothing
call() {
	cat >"$TMP/call.py" <<'END'
import socket, sys
kind, address, port = sys.argv[1:4]
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.settimeout(1)
try:
    if sys.argv[4:]:
        s.bind(("", int(sys.argv[4])))
    s.connect((address, int(port)))
    if kind == "udp":
        s.send(b"x")
    print(s.recv(100).decode())
except OSError:
    print("nothing")
END
	call_name=$1
	shift
	on "$call_name" python3 "$TMP/call.py" "$@"
}

# echoes NAME ADDRESS: it answers a ping within a second
echoes() {
	on "$1" python3 -c '
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.settimeout(1)
s.sendto(b"\x08\0\xf7\xfd\0\1\0\1", (sys.argv[1], 0))
end = time.monotonic() + 1
try:
    while time.monotonic() < end:
        packet, who = s.recvfrom(100)
        if who[0] == sys.argv[1] and packet[20] == 0:
            sys.exit(0)
except OSError:
    pass
sys.exit(1)' "$2"
}

space n1
space n2
space world
cable n1 192.0.2.1 world 192.0.2.2
cable n1 198.51.100.1 n2 198.51.100.2
OUT=', "gateway": "10.78.0.1/24"'

echo "a node that forwards nothing"
on n1 sysctl -qw net.ipv4.ip_forward=0
network n1 a 77 "$OUT" >"$TMP/said" || :
grep -qF "sysctl net.ipv4.ip_forward=1" "$TMP/said" || fail "not refused: $(cat "$TMP/said")"
[ ! -e "$TMP/net-n1-a" ] || fail "a refused network is left"
! on n1 ip -br link | grep wispout || fail "its way is left"

echo "out, and who is seen there"
on n1 sysctl -qw net.ipv4.ip_forward=1
on n2 sysctl -qw net.ipv4.ip_forward=1
expect "a" "$(network n1 a 77 "$OUT"', "local": "198.51.100.1", "add": ["198.51.100.2"]')" "{}"
expect "b" "$(network n1 b 78 "$OUT")" "{}"
expect "c" "$(network n1 c 79 "")" "{}"
expect "a too" "$(network n2 a 77 "$OUT"', "local": "198.51.100.2", "add": ["198.51.100.1"]')" "{}"
vm va n1 a 10.78.0.2
vm vb n1 b 10.78.0.2
vm vc n1 c 10.78.0.2
vm vd n2 a 10.78.0.3
vm ve n1 a 10.78.0.4
serve world 4000
serve world 4789
for i in $(seq 50); do
	[ "$(call vb tcp 192.0.2.2 4000)" = nothing ] || break
	sleep 0.1
done
for kind in tcp udp; do
	for from in va vb; do
		said=$(call $from $kind 192.0.2.2 4000 700)
		expect "$kind of $from" "${said% *}" 192.0.2.1
		[ "${said#* }" -ge 1024 ] || fail "$kind of $from: comes from port ${said#* }"
	done
done
echoes va 192.0.2.2 || fail "no echo"
expect "an isolated one" "$(call vc tcp 192.0.2.2 4000)" nothing

echo "what does not go out, and nothing comes in"
said=$(call va tcp 192.0.2.2 4789)
expect "TCP's port of that number" "${said% *}" 192.0.2.1
expect "datagrams to VXLAN's port" "$(call va udp 192.0.2.2 4789)" nothing
serve va 4000
serve vb 4000
far=$(nsenter "--net=$TMP/net-n1-b" ip -4 -o addr show dev out | sed 's/.*inet \([0-9.]*\).*/\1/')
expect "the other cluster" "$(call va tcp "$far" 4000)" nothing
on n1 ip route add 10.78.0.0/24 via "$far"
on world ip route add 10.78.0.0/24 via 192.0.2.1
expect "in from the node" "$(call n1 tcp 10.78.0.2 4000)" nothing
expect "in from the world" "$(call world tcp 10.78.0.2 4000)" nothing

echo "the gateway is each node's own, and nobody else is"
said=$(call vd tcp 10.78.0.2 4000)
expect "between nodes" "${said% *}" 10.78.0.3
echoes vd 10.78.0.1 || fail "no gateway"
nsenter "--net=$TMP/net-n2-a" ip addr del 10.78.0.1/24 dev wisp0
on vd ip neigh flush all
! echoes vd 10.78.0.1 || fail "another node's gateway answers"
echoes va 10.78.0.1 || fail "no gateway"
on ve python3 -c '
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
me = s.getsockname()[4]
gateway = bytes([10, 78, 0, 1])
s.send(b"\xff" * 6 + me + b"\x08\x06\0\x01\x08\0\x06\x04\0\x02" + me + gateway + b"\xff" * 6 + gateway)'
sleep 0.5
on va ip neigh show 10.78.0.1 | grep -q "lladdr 02:57:0a:4e:00:01" ||
	fail "$(on va ip neigh show 10.78.0.1) is taken for the gateway"

echo "gone"
for n in "$TMP"/net-*; do
	job n1 "{\"op\": \"clean\", \"cluster\": \"x\", \"network\": \"$n\"}" >/dev/null
done
! on n1 ip -br link | grep wispout || fail "a way is left"
