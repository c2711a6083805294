# SPDX-License-Identifier: Apache-2.0
"""node-tree.py BUILD FOLDER: what node-tree.sh shows."""
import errno, json, os, re, signal, subprocess, sys, time

from node_client import Client, Refused, refused
from node_daemons import Daemon, end_all

build, folder = sys.argv[1:]
NOBODY = 65534
SECRET = "the secret of a coordinator"
DOCUMENT = "cpus: 2\nmemory: 64M\ndedicated: yes\n"
daemons = []


def step(text):
    print(f"{time.monotonic() - began:6.2f} {text}", flush=True)


def key_file(name, text):
    path = f"{folder}/{name}"
    with open(path, "w") as f:
        os.chmod(path, 0o600)
        f.write(text)
    return path


def digest():
    path = f"{folder}/environment.yaml"
    with open(path, "w") as f:
        f.write(DOCUMENT)
    text = subprocess.check_output([f"{build}/src/cli/wisp", "env", "merge", "--json", path])
    return json.loads(text)["digest"]


def join(client, nodes, secret=SECRET, fan=2, seconds=30):
    return client.ask("join", seconds=seconds, session=secret, place=0, nodes=nodes, fan=fan)


def reserve(client, cluster, **members):
    return client.ask("reserve", cluster=cluster, digest=DIGEST, vms=[{"name": "v0"}],
                      documents=[{"name": "test", "text": DOCUMENT}], **members)


def clusters(daemon):
    client = daemon.client()
    count = len(client.ask("list", all=True)["value"]["clusters"])
    client.close()
    return count


def until(what, seconds, text):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"in vain for {seconds} s: {text}"
        time.sleep(0.05)


def tree_by_key():
    key = key_file("key", "k" * 40)
    nodes = [Daemon(build, folder, f"n{i}", "--key", key) for i in range(6)]
    daemons.extend(nodes)
    names = [d.address for d in nodes]
    top = nodes[0].client()
    answer = join(top, names)
    assert answer["ok"] == "0-5", answer
    values = top.ask("facts")["values"]
    assert [values[i]["name"] for i in range(6)] == [d.name for d in nodes], values
    step("six nodes are a tree by their key, and say what they are")

    answer = reserve(top, "lu-00000001")
    assert sorted(answer["values"]) == list(range(6)) and not answer["errors"], answer
    assert answer["values"][5]["grants"]["v0"]["cpus"] == "0-1"
    assert all(clusters(d) == 1 for d in nodes)
    # Four cores a node: the third cluster finds none free on one of them.
    reserve(top, "lu-00000002", to="3")
    reserve(top, "lu-00000003", to="3")
    reserve(top, "lu-00000004", to="3")
    answer = reserve(top, "lu-00000005")
    assert list(answer["errors"]) == [3] and answer["errors"][3]["errno"] == errno.EBUSY, answer
    assert answer["errors"][3]["missing"][0]["resource"] == "threads", answer
    assert "lu-00000001" in json.dumps(answer["errors"][3]["missing"])
    for i in 2, 3, 4, 5:
        assert top.ask("release", cluster=f"lu-0000000{i}")["ok"] == "0-5"
    step("it reserves, says who holds what, and releases")
    refusals(nodes, top)
    losses(nodes, top)
    sessions(nodes, top, names)
    return nodes


def refusals(nodes, top):
    answer = top.ask("fly")
    assert len(answer["errors"]) == 6 and answer["errors"][4]["errno"] == errno.ENOSYS, answer
    answer = top.ask("session", session="another secret of ours")
    assert "join" in answer["errors"][0]["error"], answer
    other = nodes[0].client()
    refused(errno.EINVAL, "begins with n1", lambda: join(other, [nodes[1].address]))
    refused(errno.EINVAL, "16 to 128", lambda: join(other, [nodes[0].address], "short"))
    refused(errno.EINVAL, "number", lambda: join(other, [nodes[0].address],
                                                 {"secret": SECRET, "user": "root"}))
    answer = join(other, [nodes[0].address, "n9@nowhere.invalid", "-oProxyCommand=x", "n8@h:0",
                          "nx@127.0.0.1:" + str(nodes[1].port)], "a secret of another session")
    assert answer["ok"] == "0" and sorted(answer["errors"]) == [1, 2, 3, 4], answer
    for place, text in (1, "nowhere.invalid"), (2, "-oProxyCommand"), (3, "port"), (4, "it is node n1, not nx"):
        assert text in answer["errors"][place]["error"], answer
    other.close()
    step("what is wrong is refused, with the reason")


def losses(nodes, top):
    lost = nodes[1]
    lost.kill()
    began = time.monotonic()
    _, event = top.event("node-lost")
    assert time.monotonic() - began < 5, "a killed daemon was reported too late"
    assert event["nodes"].startswith("1"), event
    until(lambda: sorted(top.ask("facts")["values"]) == [0, 2, 3, 4, 5], 20,
          "the rest is reached without the lost one")
    answer = top.ask("facts")
    assert answer["errors"][1]["errno"] == errno.EHOSTDOWN, answer
    step("a killed one is reported, and those below it are reached without it")
    lost.start()
    until(lambda: len(top.ask("facts")["values"]) == 6, 30, "it is called again")
    assert clusters(lost) == 1, "what it had promised is lost"
    # A stopped one says nothing: that is noticed as well.
    nodes[4].process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    while not top.event("node-lost")[1]["nodes"] == "4":
        pass
    took = time.monotonic() - began
    nodes[4].process.send_signal(signal.SIGCONT)
    assert took < 5.5, f"a silent one was reported after {took:.1f} s"
    until(lambda: len(top.ask("facts")["values"]) == 6, 30, "it is called again")
    step(f"it comes back; a silent one is reported after {took:.1f} s")


def sessions(nodes, top, names):
    top.close()
    time.sleep(0.5)
    top = nodes[0].client()
    assert join(top, names)["ok"] == "0-5"
    time.sleep(9)
    assert all(clusters(d) == 1 for d in nodes), "the session came back in vain"
    top.close()
    until(lambda: not any(clusters(d) for d in nodes), 20, "the grace time ends reservations")
    step("a coordinator that comes back keeps all, one that does not loses all")


def stranger(socket, names):
    """Another user: exit code 0 when it is refused what it is to be refused."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    client = Client(socket)
    refused(errno.EPERM, "may not ask for user 0",
            lambda: join(client, names, {"secret": SECRET, "user": 0}))
    refused(errno.EPERM, "may not ask for user 0",
            lambda: client.ask("connect", **{"as": 0}, cluster="lu-00000001", stream=1))
    # The other's secret is of no use.
    assert join(client, names)["ok"] == "0-5"
    assert not any(v["clusters"] for v in client.ask("list")["values"].values())
    answer = client.ask("release", cluster="lu-00000001")
    assert len(answer["errors"]) == 6, answer
    assert "another user" in answer["errors"][5]["error"], answer
    assert len(client.ask("drain", because="I can")["errors"]) == 6
    assert len(client.ask("list", all=True)["errors"]) == 6
    reserve(client, "ep-00000002")
    assert all(v["clusters"] for v in client.ask("list")["values"].values())


def users(nodes):
    if os.geteuid():
        step("not root: other users are not tried")
        return
    names = [d.address for d in nodes]
    top = nodes[0].client()
    join(top, names)
    reserve(top, "lu-00000001")
    pid = os.fork()
    if not pid:
        try:
            stranger(nodes[0].socket, names)
            os._exit(0)
        except BaseException as e:
            print(f"stranger: {e!r}", file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "another user got what is not its"
    owners = [json.dumps(v) for v in top.ask("list", all=True)["values"].values()]
    assert all('"user": 65534' in o for o in owners), owners
    assert top.ask("release", cluster="lu-00000001")["ok"] == "0-5"
    top.close()
    step("another user has its own, and is refused what is ours")
    operators()


def operators():
    node = Daemon(build, folder, "ops", "--operators", "nogroup", listen=False)
    daemons.append(node)
    pid = os.fork()
    if not pid:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            client = Client(node.socket)
            # All at once: what is not known yet of the first is waited for by all, in order.
            ids = [client.begin("drain", because="a fan is loud"), client.begin("list", all=True),
                   client.begin("undrain")]
            answers = [client.finish(i) for i in ids]
            os._exit(answers[1]["value"]["draining"] != "a fan is loud")
        except BaseException as e:
            print(f"operator: {e!r}", file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "an operator may not do what operators do"
    step("members of the operators' group may do what root may")


def strangers(nodes):
    alien = Daemon(build, folder, "alien", "--key", key_file("other", "o" * 40))
    daemons.append(alien)
    top = nodes[0].client()
    answer = join(top, [nodes[0].address, alien.address, nodes[1].address, "n7@127.0.0.1:1"],
                  "the secret of one with a stranger", fan=8)
    assert answer["ok"] == "0,2", answer
    assert "is not reached" in answer["errors"][1]["error"], answer
    assert "not the same key" in answer["errors"][1]["error"], answer
    assert "no wispd --listen" in answer["errors"][3]["error"], answer
    until(lambda: "not the same key" in alien.said(), 10, "the listener says why")
    top.close()
    # Who says nothing, or nonsense, is forgotten; others are served meanwhile.
    import socket
    idle = []
    for i in range(60):
        s = socket.create_connection(("127.0.0.1", nodes[1].port))
        if i % 2:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        idle.append(s)
    top = nodes[0].client()
    assert join(top, [nodes[0].address, nodes[2].address], "the secret of a third one")["ok"] == "0-1"
    until(lambda: "too many connections are being greeted" in nodes[1].said(), 10, "the limit")
    for s in idle:
        s.close()
    top.close()
    assert nodes[1].process.poll() is None
    step("a wrong key is refused, and both sides say so; strangers are bounded")


def few_descriptors():
    """One that has none left waits, and does not spin."""
    import resource
    node = nodes[5]
    used = len(os.listdir(f"/proc/{node.process.pid}/fd"))
    limits = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (used + 6, limits[1]))
    import socket
    waiting = []
    for _ in range(12):
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].connect(node.socket)
    until(lambda: "cannot accept" in node.said(), 10, "it says what is missing")

    def cpu():
        with open(f"/proc/{node.process.pid}/stat") as f:
            return sum(int(x) for x in f.read().split()[13:15])
    before = cpu()
    time.sleep(1)
    assert cpu() - before < 50, "it spins"
    for s in waiting:
        s.close()
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, limits)
    client = node.client()
    client.ask("facts")
    client.close()
    step("one without descriptors waits for some")


def bad_starts():
    def start(*options):
        p = subprocess.run([f"{build}/src/node/wispd", "--state", f"{folder}/bad", "--name", "bad",
                            *options], capture_output=True, text=True, timeout=20)
        return p.returncode, p.stderr

    weak = key_file("weak", "w" * 40)
    os.chmod(weak, 0o644)
    for options, text in [
            (["--listen", "127.0.0.1", "--key", weak], "chmod 600"),
            (["--listen", "127.0.0.1", "--key", key_file("short", "s")], "1 bytes"),
            (["--key", f"{folder}/none"], "cannot open the cluster's key"),
            (["--listen", "127.0.0.1:x", "--key", f"{folder}/key"], "port"),
            (["--listen", "::1", "--key", f"{folder}/key"], "brackets"),
            (["--listen", "192.0.2.1", "--key", f"{folder}/key"], "--listen 192.0.2.1: cannot listen"),
            (["--launcher", " "], "name a command")]:
        code, said = start(*options)
        assert code == 1 and text in said, f"{options}: {code}, {said}"
    step("bad options are refused, with the reason")


def munge():
    program = "/usr/sbin/munged"
    socket = f"{folder}/munge.socket"
    if os.geteuid() or not os.access(program, os.X_OK):
        step("MUNGE is not tried: no munged, or not root")
        return
    process = subprocess.Popen(
        [program, "--foreground", "--force", f"--socket={socket}",
         "--key-file=" + key_file("munge.key", "m" * 64), f"--pid-file={folder}/munge.pid",
         f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: os.path.exists(socket) or process.poll() is not None, 20, "munged starts")
        nodes = [Daemon(build, folder, f"m{i}", "--munge-socket", socket) for i in range(3)]
        daemons.extend(nodes)
        if "MUNGE" not in nodes[0].said():
            step("MUNGE is not tried: built without it")
            return
        top = nodes[0].client()
        assert join(top, [d.address for d in nodes])["ok"] == "0-2"
        assert len(top.ask("facts")["values"]) == 3
        top.close()
        process.kill()
        process.wait()
        top = nodes[1].client()
        answer = join(top, [nodes[1].address, nodes[2].address], "the secret of a late one")
        assert answer["ok"] == "0", answer
        assert "start munged" in answer["errors"][1]["error"], answer
        top.close()
        step("three nodes are a tree by MUNGE, and say so when it has gone")
    finally:
        process.kill()
        process.wait()


began = time.monotonic()
try:
    DIGEST = digest()
    nodes = tree_by_key()
    users(nodes)
    strangers(nodes)
    few_descriptors()
    bad_starts()
    munge()
    import socket
    half = socket.create_connection(("127.0.0.1", nodes[0].port))
    half.sendall(b"\0")
    time.sleep(0.2)
    for d in daemons:
        if d.process:
            assert d.kill(signal.SIGTERM) == 0
            assert not os.path.exists(d.socket)
finally:
    for d in daemons:
        if sys.exc_info()[0]:
            print(f"---- {d.name}\n{d.said()}", file=sys.stderr)
    end_all(daemons)
