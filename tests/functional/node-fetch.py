# SPDX-License-Identifier: Apache-2.0
"""node-fetch.py BUILD FOLDER: what node-fetch.sh shows."""
import errno, hashlib, json, os, subprocess, sys, time

from node_client import Refused, refused
from node_daemons import Daemon, end_all

build, folder = sys.argv[1:]
NOBODY = 65534
CLUSTER = "lu-0123abcd"
DOCUMENT = "cpus: 1\nmemory: 64M\n"
CHUNK = 4 << 20
SIZES = {"vmlinux": 3 << 20, "vmlinuz": 1 << 20, "initrd": 1 << 20, "root.squashfs": (40 << 20) + 123}


def step(text):
    print(f"{time.monotonic() - began:6.2f} {text}", flush=True)


def give_away(path):
    for where, folders, files in os.walk(path):
        for entry in [where] + [f"{where}/{f}" for f in folders + files]:
            os.chown(entry, NOBODY, NOBODY)


def make_image(home, name):
    """Parts of noise; its digest."""
    parts = {}
    os.makedirs(f"{home}/images/{name}")
    for part, size in SIZES.items():
        data = os.urandom(size)
        with open(f"{home}/images/{name}/{part}", "wb") as f:
            f.write(data)
        parts[part] = {"size": size, "sha256": hashlib.sha256(data).hexdigest(),
                       "chunks": [hashlib.sha256(data[i:i + CHUNK]).hexdigest() for i in range(0, size, CHUNK)]}
    content = {"format": 1, "key": "k", "parts": parts}
    with open(f"{home}/images/{name}/manifest.json", "w") as f:
        json.dump({**content, "name": name}, f)
    give_away(home)
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Node(Daemon):
    """A node of its own, with a VM of the cluster."""

    def __init__(self, number, digest):
        self.home = f"{folder}/home{number}"
        os.makedirs(self.home, exist_ok=True)
        for path in (self.home, f"{folder}/run{number}", f"{folder}/n{number}"):
            os.makedirs(path, exist_ok=True)
            os.chown(path, NOBODY, NOBODY)
        super().__init__(build, folder, f"n{number}", "--key", f"{folder}/key", user=NOBODY,
                         env={"WISP_HOME": self.home, "WISP_RUN": f"{folder}/run{number}", "HOME": self.home,
                              "WISP_CONFIG": self.home, "WISP_CACHE": self.home})
        self.says = self.client()
        self.says.ask("session", session=f"the secret of node {number}")
        vm = {"name": f"lu-{number}", "address": f"10.78.0.{number + 2}"}
        self.says.ask("reserve", cluster=CLUSTER, digest=digest, vms=[vm],
                      documents=[{"name": "test", "text": DOCUMENT}])
        self.says.ask("network", cluster=CLUSTER, vni=number + 77, subnet="10.78.0.0/24", nodes=[])

    def client(self):
        os.seteuid(NOBODY)
        try:
            return super().client()
        finally:
            os.seteuid(0)

    def begin(self, image, *nodes):
        sources = [node if isinstance(node, str) else node.address for node in nodes]
        return self.says.begin("image", cluster=CLUSTER, image=image, **{"from": sources})

    def fetch(self, image, *nodes):
        return self.says.finish(self.begin(image, *nodes), 60)["value"]

    def images(self):
        return sorted(name for name in os.listdir(f"{self.home}/images") if not name.startswith("."))

    def verify(self, name):
        subprocess.run([f"{build}/src/cli/wisp", "image", "verify", name], env=self.env, user=NOBODY, check=True, stdout=subprocess.DEVNULL)


def main():
    path = f"{folder}/environment.yaml"
    with open(path, "w") as f:
        f.write(DOCUMENT)
    with open(f"{folder}/key", "w") as f:
        f.write("k" * 40)
    os.chmod(f"{folder}/key", 0o600)
    os.chown(f"{folder}/key", NOBODY, NOBODY)
    digest = json.loads(subprocess.check_output([f"{build}/src/cli/wisp", "env", "merge", "--json", path]))["digest"]
    image = "big@sha256:" + make_image(f"{folder}/home1", "big")
    nodes = [None] + [Node(n, digest) for n in range(1, 8)]
    daemons.extend(nodes[1:])

    step("who has it says so, and who does not")
    assert "from" not in nodes[1].fetch(image)
    refused(errno.ENOENT, "no image big", lambda: nodes[2].fetch(image))
    refused(errno.EINVAL, "is not NAME@sha256", lambda: nodes[2].fetch("big"))
    refused(errno.EINVAL, "has to be sha256", lambda: nodes[2].fetch("big@sha256:12"))

    step("it is fetched, checked, and there")
    got = nodes[2].fetch(image, nodes[1])
    assert got["from"] == nodes[1].address and got["bytes"] == sum(SIZES.values()), got
    told = nodes[2].says.event("progress")[1]
    assert told["op"] == "image" and told["node"] == "n2" and told["total"] == got["bytes"], told
    nodes[2].verify("big")
    assert "from" not in nodes[2].fetch(image, nodes[1])

    step("the next source, where one is not there, or another's")
    got = nodes[3].fetch(image, "n9@127.0.0.1:1", "n1@127.0.0.1:%d" % nodes[2].port, nodes[2])
    assert got["from"] == nodes[2].address, got
    refused(errno.EREMOTEIO, "node n9@127.0.0.1:1", lambda: nodes[4].fetch(image, "n9@127.0.0.1:1"))

    step("down a chain, asked for from below")
    waits = nodes[5].begin(image, nodes[4])
    time.sleep(1)
    nodes[4].fetch(image, nodes[1])
    assert nodes[5].says.finish(waits)["value"]["from"] == nodes[4].address
    nodes[5].verify("big")

    step("what is damaged at one comes from the other")
    with open(f"{nodes[5].home}/images/big/root.squashfs", "r+b") as f:
        f.seek(30 << 20)
        f.write(b"other bytes than before")
    got = nodes[6].fetch(image, nodes[5], nodes[1])
    assert got["from"] == nodes[1].address and 0 < got["bytes"] < sum(SIZES.values()), got
    nodes[6].verify("big")

    step("a source that dies under it, and a name that is taken")
    make_image(nodes[7].home, "big")
    begun = nodes[7].begin(image, nodes[1], nodes[2])
    nodes[7].says.event("progress")
    nodes[1].kill()
    nodes[7].says.finish(begun)
    assert len(nodes[7].images()) == 2, nodes[7].images()
    nodes[7].verify(next(name for name in nodes[7].images() if name != "big"))

    step("nobody else's cluster is a way to images")
    refused(errno.ENOENT, "has no resources", lambda: nodes[2].client().open(1, cluster="cg-0123abcd", what="image"))


began = time.monotonic()
daemons = []
try:
    main()
finally:
    end_all(daemons)
