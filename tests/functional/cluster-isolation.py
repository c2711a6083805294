# SPDX-License-Identifier: Apache-2.0
"""Two users' clusters on the same two nodes: see cluster-isolation.sh. A node is root's wispd in a network of its own.

    cluster-isolation.py WISPD STATE CGROUPS HOMES

Each cluster has four VMs: two run bare guests, one at each node; the taps of the others are opened by the test in their
place, as their user, so that it sends what a guest could.
"""

import errno
import fcntl
import json
import multiprocessing
import os
import re
import select
import socket
import struct
import subprocess
import sys
import time

import frames
import stranger
from as_user import Child
from node_client import Client, refused
from node_users import (DOCUMENT, HOMES, Node, RUN, STATE, USERS, VNI, digest, end_all, expect, make_home, make_key, read,
                        reserve, start_daemon, vmms)

STATES = [STATE, STATE + "-n1"]
ADDRESSES = ["10.77.0.2", "10.77.0.3"]
MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
SUBNET = "10.78.0.0/24"
CLUSTERS = {"ann": f"lu-{RUN}", "bob": f"cg-{RUN}"}
VNIS = {"ann": VNI, "bob": VNI + 1}
OTHER = {"ann": "bob", "bob": "ann"}
MARKS = {user: f"wisp-mark-of-{user}".encode() for user in USERS}
OVER = f"{STATE}/../over"
TUNSETIFF, TUNSETVNETHDRSZ, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454ca, 0x400454d8, 2, 0x1000, 0x4000
VNET_HEADER = 12
NODE_1 = f"{STATE}/../network-of-n1"
INSIDE = [], ["nsenter", f"--net={NODE_1}"]


def make_nodes():
    """Two networks with a cable; this one is the first node's."""
    open(NODE_1, "w", encoding="ascii").close()
    commands = [f"unshare --net={NODE_1} ip link set lo up",
                f"ip link add to-n1 address {MACS[0]} type veth peer name to-n0 address {MACS[1]}",
                f"ip link set to-n0 netns {NODE_1}"]
    for inside, device, address in zip(INSIDE, ("to-n1", "to-n0"), ADDRESSES):
        commands += [" ".join([*inside, "ip", *what.split(), device]) for what in (f"addr add {address}/24 dev", "link set up dev")]
    for command in commands:
        subprocess.run(command.split(), check=True)


def port(place):
    return re.findall(rf"at {ADDRESSES[place]} port (\d+)", read(f"{STATE}/../log"))[-1]


def start_both():
    return [start_daemon(f"n{place}", STATES[place], INSIDE[place], address=ADDRESSES[place]) for place in (0, 1)]


def network(user, place):
    return f"{STATES[place]}/net/{CLUSTERS[user]}"


def numbers(place):
    """Of a cluster's VMs there: a running one, and one whose tap is ours."""
    return place, place + 2


def up(user, nodes):
    name = CLUSTERS[user].split("-")[0]
    for place, node in enumerate(nodes):
        hosts = reserve(node, CLUSTERS[user], DOCUMENT, numbers(place))
        node.ask("network", cluster=CLUSTERS[user], vni=VNIS[user], subnet=SUBNET, nodes=[ADDRESSES[place], ADDRESSES[1 - place]])
        node.ask("start", cluster=CLUSTERS[user], hosts=hosts, image="bare", vms=[f"{name}-{place}"])


# -------- frames --------

def open_tap(number):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", f"vm{number + 2}".encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
    return fd


def hear(fd, counts):
    """What has come, at most for that moment."""
    while select.select([fd], [], [], 0.001)[0]:
        data = os.read(fd, 65536)
        for user, mark in MARKS.items():
            counts[user] += mark in data


def talk(number, ready, to_send):
    """A VM whose tap that is: how much it sent, and how much it heard from whose VMs."""
    fd = open_tap(number)
    counts = dict.fromkeys(USERS, 0)
    ready.wait(30)
    sent = 0
    for data in to_send:
        os.write(fd, bytes(VNET_HEADER) + data)
        sent += 1
        if sent % 32 == 0:
            hear(fd, counts)
    ready.wait(60)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        hear(fd, counts)
    return {"sent": sent, "heard": counts}


def listeners():
    """At all interfaces of both nodes and of both networks there: {(whose, place): process}."""
    marks = ",".join(f"{VNIS[user]}={mark.hex()}" for user, mark in MARKS.items())
    found = {}
    for place in (0, 1):
        for whose, inside in ("node", INSIDE[place]), *((u, ["nsenter", f"--net={network(u, place)}"]) for u in USERS):
            command = [*inside, sys.executable, os.path.dirname(__file__) + "/listen.py", OVER, marks]
            found[whose, place] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for process in found.values():
        expect("a listener", process.stderr.readline(), "ready\n")
    return found


def check_frames():
    addresses = ["10.78.0.2", "10.78.0.3", "10.78.0.1", *ADDRESSES, "127.0.0.1"]
    macs = MACS + [f"02:57:0a:4e:00:{2 + number:02x}" for number in range(4)]
    listening = listeners()
    ready = multiprocessing.get_context("fork").Barrier(4)
    ends = {}
    for user in USERS:
        to_send = list(frames.frames(MARKS[user], VNIS.values(), addresses, macs))
        for place in (0, 1):
            ends[user, place] = Child(user, network(user, place), talk, numbers(place)[1], ready, to_send)
    said = {end: child.result() for end, child in ends.items()}
    open(OVER, "w", encoding="ascii").close()
    counts = {place: json.loads(process.communicate(timeout=20)[0]) for place, process in listening.items()}
    for (user, place), what in said.items():
        expect(f"frames of {OTHER[user]}'s that {user}'s VM at n{place} heard", what["heard"][OTHER[user]], 0)
        expect(f"that {user}'s VM at n{place} heard the other of {user}'s", what["heard"][user] > 100, True)
    for (whose, place), count in counts.items():
        expect(f"what came too fast for {whose} at n{place}", count["dropped"], 0)
        if whose == "node":
            for user in USERS:
                expect(f"{user}'s frames between the nodes", count.get(f"{VNIS[user]} carried", 0) > 100, True)
            expect(f"frames astray at n{place}", [what for what in count if what.endswith((" plain", " astray"))], [])
        else:
            expect(f"{whose}'s own at n{place}", count[f"{VNIS[whose]} plain"] > 100, True)
            expect(f"other's in {whose}'s at n{place}", [what for what in count if what.startswith(f"{VNIS[OTHER[whose]]} ")], [])
    return sum(what["sent"] for what in said.values()), sum(what["heard"][OTHER[user]] for (user, _), what in said.items())


# -------- datagrams that pass for a node's --------

STRANGE = f"{STATE}/../network-of-n2"  # a machine that no cluster is on
VXLAN_PORT = 4789


def make_stranger():
    open(STRANGE, "w", encoding="ascii").close()
    for command in (f"unshare --net={STRANGE} ip link set lo up", "ip link add to-n2 type veth peer name to-n0",
                    f"ip link set to-n0 netns {STRANGE}", "ip addr add 10.77.1.2/24 dev to-n2", "ip link set up dev to-n2",
                    f"nsenter --net={STRANGE} ip addr add 10.77.1.3/24 dev to-n0", f"nsenter --net={STRANGE} ip link set up dev to-n0"):
        subprocess.run(command.split(), check=True)


def send_datagram(user, address):
    """A frame to all in VXLAN, as any process may send it."""
    frame = b"\xff" * 6 + bytes.fromhex("02570a4e0003") + b"\x88\xb5" + MARKS[user] + bytes(46)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.sendto(bytes([8, 0, 0, 0]) + VNIS[user].to_bytes(3, "big") + b"\0" + frame, (address, VXLAN_PORT))
        except PermissionError:
            return False
    return True


def came(user, place):
    """Frames that have come to the cluster's bridge from other nodes."""
    shown = subprocess.run(["nsenter", f"--net={network(user, place)}", "ip", "-s", "-j", "link", "show", "nodes"],
                           stdout=subprocess.PIPE, check=True)
    return json.loads(shown.stdout)[0]["stats64"]["rx"]["packets"]


def nft(place, *words):
    return subprocess.run([*INSIDE[place], "nft", *words], stdout=subprocess.PIPE, check=True).stdout.decode()


def rises(user, place):
    """How many come meanwhile, of those that a stranger sends."""
    before = came(user, place)
    expect("a machine that is free to send", Child("nobody", STRANGE, send_datagram, user, "10.77.1.2").result(), True)
    time.sleep(0.2)
    return came(user, place) - before


def check_datagrams():
    """Nobody but the cluster's nodes, and no process there, sends into its network; how many tried."""
    make_stranger()
    tried = 0
    for user in USERS:
        for place in (0, 1):
            for name in (user, OTHER[user]):
                for address in (*ADDRESSES, "127.0.0.1"):
                    sent = Child(name, INSIDE[place] and NODE_1, send_datagram, user, address).result()
                    expect(f"{name} at n{place} may send what passes for a frame of {user}'s", sent, False)
                    tried += 1
        expect(f"frames of a stranger's in {user}'s network", rises(user, 0), 0)
        tried += 1
        # That it was these rules.
        table = "wisp_" + CLUSTERS[user].encode().hex()
        nft(0, f"add element ip {table} nodes {{ 10.77.1.3 }}")
        expect("frames of a node's", rises(user, 0), 1)
        nft(0, f"delete element ip {table} nodes {{ 10.77.1.3 }}")
    return tried


# -------- files, sockets, processes --------

def save(user, node):
    """A checkpoint at that node; its folder."""
    folder = f"{HOMES}/{user}/saved"
    os.mkdir(folder)
    os.chown(folder, USERS[user], USERS[user])
    node.ask("save", cluster=CLUSTERS[user], step="begin", folder=folder, mode="live", vms=[CLUSTERS[user].split("-")[0] + "-0"])
    for step in "cut", "resume", "commit":
        node.ask("save", cluster=CLUSTERS[user], step=step)
    return folder


def check_apart(saved):
    """What there is to reach, the owner reaches; the other nothing of it, from a node or a network of its own."""
    tried = 0
    for owner, other in OTHER.items():
        for place in (0, 1):
            places = INSIDE[place] and NODE_1, network(other, place)
            ways, reached, lacks = stranger.apart(owner, other, f"{STATES[place]}/user/{USERS[owner]}", network(owner, place),
                                                  [saved[owner]] * (place == 0), places)
            expect(f"what {other} reaches of {owner}'s at n{place}", reached, [])
            expect(f"what {owner} does not reach at n{place}", lacks, [])
            tried += ways
    return tried


# -------- requests --------

def others_requests(cluster, vm, place):
    """Each that names a cluster or a VM of it."""
    hosts = [{"name": vm, "address": "10.78.0.2"}]
    return {"reserve": {"documents": [{"name": "test", "text": DOCUMENT}], "digest": digest(DOCUMENT), "vms": hosts},
            "network": {"vni": VNI + 9, "subnet": SUBNET, "nodes": [ADDRESSES[place]]},
            "image": {"image": "bare@sha256:" + "0" * 64}, "start": {"hosts": hosts, "image": "bare", "vms": [vm]},
            "restore": {"hosts": hosts, "image": "bare", "from": {vm: {"folder": "/tmp", "epoch": 1}}},
            "pause": {}, "resume": {}, "stop": {"kill": True}, "release": {}, "tcp": {}, "vms": {},
            "save": {"step": "begin", "folder": "/tmp", "mode": "live"},
            "send": {"vm": vm, "target": "tcp:127.0.0.1:1", "token": "0" * 64},
            "receive": {"vm": vm, "hosts": hosts, "image": "bare", "token": "0" * 64, "listen": "127.0.0.1"}}


def join(user):
    """Both nodes as a coordinator of the user has them."""
    os.seteuid(USERS[user])
    client = Client(f"{STATE}/socket")
    os.seteuid(0)
    client.ask("join", session=f"a tree of {user} alone", place=0, nodes=["n0", f"n1@{ADDRESSES[1]}:{port(1)}"], fan=16)
    return client


def check_requests(user, nodes):
    """The node is asked for what is the other's directly, with the other's secret, and by a tree; how many were refused."""
    cluster, name = CLUSTERS[OTHER[user]], CLUSTERS[OTHER[user]].split("-")[0]
    thief = Node(user)
    thief.ask("session", session=f"the secret of {OTHER[user]} alone")
    tree = join(user)
    tried = 0
    for place in (0, 1):
        vm = f"{name}-{place}"
        for op, members in others_requests(cluster, vm, place).items():
            code, reason = (errno.EEXIST, "of another session") if op == "reserve" else (errno.EPERM, "another user's")
            for node in (nodes[place], *[thief] * (place == 0)):
                refused(code, reason, lambda: node.ask(op, cluster=cluster, **members))
                tried += 1
            error = tree.ask(op, to=str(place), cluster=cluster, **members)["errors"][place]
            expect(f"{op} by a tree", (error["errno"], reason in error["error"]), (code, True))
            tried += 1
        for what in "agent", "console", "image":
            for at in f"n{place}@{ADDRESSES[place]}:{port(place)}", f"n{place}":
                client = Node(user, STATES[place])
                refused(errno.EPERM, "another user's", lambda: client.open(1, node=at, cluster=cluster, vm=vm, what=what))
                client.close()
                tried += 1
        told = "".join(json.dumps(nodes[place].ask(op)) for op in ("list", "account", "metrics"))
        expect(f"{cluster} in what n{place} tells {user}", cluster in told or vm in told, False)
        # A network of the other's number is not made; by a cluster of the user's own.
        own = f"da-{RUN}"
        reserve(nodes[place], own, DOCUMENT, (place,))
        refused(errno.EEXIST, "VXLAN number", lambda: nodes[place].ask(
            "network", cluster=own, vni=VNIS[OTHER[user]], subnet=SUBNET, nodes=[ADDRESSES[place]]))
        nodes[place].ask("release", cluster=own)
        tried += 1
    thief.close()
    tree.close()
    return tried


# -------- cores --------

def vcpus(pid):
    """CPUs where its vCPUs may run, and the ones where they were last."""
    found = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        status = read(f"/proc/{pid}/task/{task}/status")
        if status.split(None, 2)[1].startswith("vcpu"):
            for text in re.search(r"Cpus_allowed_list:\s*(\S+)", status).group(1).split(","):
                first, last = text.split("-") if "-" in text else (text, text)
                found |= set(range(int(first), int(last) + 1))
            found.add(int(read(f"/proc/{pid}/task/{task}/stat").rsplit(")", 1)[1].split()[36]))
    return found


def cores_of(nodes):
    return nodes["ann"][0].ask("facts")["topology"]["cores"]


def cores_at(place, nodes):
    """Dedicated ones: where the vCPUs of both are while they compete, and who may have a third. How many are shared."""
    document = DOCUMENT + "dedicated: yes\n"
    names = {"ann": "da", "bob": "db"}
    for user, name in names.items():
        node, cluster = nodes[user][place], f"{name}-{RUN}"
        hosts = reserve(node, cluster, document, (0,))
        node.ask("network", cluster=cluster, vni=VNIS[user] + 2, subnet=SUBNET, nodes=[])
        node.ask("start", cluster=cluster, hosts=hosts, image="bare", vms=[f"{name}-0"])
    running = vmms()
    seen = {"da-0": set(), "db-0": set()}
    for _ in range(100):
        for vm, cpus in seen.items():
            cpus |= vcpus(running[vm])
        time.sleep(0.01)
    expect("VMs with CPUs", [bool(cpus) for cpus in seen.values()], [True, True])
    shared = len(seen["da-0"] & seen["db-0"])
    expect(f"CPUs that both have at n{place}", shared, 0)
    if cores_of(nodes) == 2:
        answer = refused(errno.EBUSY, "", lambda: reserve(nodes["bob"][place], f"dc-{RUN}", document, (0,)))
        expect("ann in what bob is told", any(word in json.dumps(answer) for word in ("ann", "7001")), True)
    for user, name in names.items():
        nodes[user][place].ask("release", cluster=f"{name}-{RUN}")
    return shared


def check_cores(nodes):
    """One node after the other: both have the same CPUs here."""
    if cores_of(nodes) < 2:
        return "not measured, there is one"
    return sum(cores_at(place, nodes) for place in (0, 1))


def main():
    make_key()
    for name, uid in USERS.items():
        make_home(name, uid)
    make_nodes()
    daemons = start_both()
    try:
        nodes = {user: [Node(user, state) for state in STATES] for user in USERS}
        for user in USERS:
            up(user, nodes[user])
        running = vmms()
        expect("VMs", sorted(running), ["cg-0", "cg-1", "lu-0", "lu-1"])
        sent, heard = check_frames()
        forged = check_datagrams()
        saved = {user: save(user, nodes[user][0]) for user in USERS}
        ways = check_apart(saved)
        requests = sum(check_requests(user, nodes[user]) for user in USERS)
        expect("VMs after all that", vmms(), running)
        for user in USERS:
            for node in nodes[user]:
                node.ask("release", cluster=CLUSTERS[user])
        shared = check_cores(nodes)
        for place in (0, 1):
            expect(f"rules that are left at n{place}", re.findall(r"wisp_\w+", nft(place, "list", "tables")), [])
        print(f"isolation: {sent} frames sent, {heard} heard by the other's VMs; {forged} datagrams forged, 0 taken; {ways} ways to files, sockets and processes "
              f"tried, 0 open; {requests} requests for the other's, 0 done; cores shared: {shared}", flush=True)
        expect("VMs", vmms(), {})
        for user in USERS:
            for node in nodes[user]:
                node.close()
        for daemon in daemons:
            daemon.terminate()
            expect("wispd's exit code", daemon.wait(20), 0)
    finally:
        open(OVER, "w", encoding="ascii").close()
        for daemon in daemons:
            if daemon.poll() is None:
                daemon.kill()
        end_all()


main()
