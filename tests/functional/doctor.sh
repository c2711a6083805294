#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp doctor: every fact has its value, or what is missing and what Wisp does instead; it is quick.
# Alone: tests/run doctor
. "$(dirname "$0")/lib.sh"

refuse 2 "there is no fact" wisp doctor something
wisp doctor >"$TMP/text"
timeout 30 wisp doctor --json >"$TMP/json"
python3 - "$TMP/json" "$TMP/text" <<'EOF'
import json, sys
doctor = json.load(open(sys.argv[1]))
text = open(sys.argv[2]).read()
facts = {f["name"]: f for f in doctor["facts"]}
wanted = ("kvm hugepages numa iommu vhost-net vhost-vsock vfio sriov infiniband userns cgroup2 "
          "io_uring userfaultfd slurm munge nftables lab tun memory").split()
missing = [name for name in wanted if name not in facts]
assert not missing, missing
for f in facts.values():
    assert f["title"] in text, f
    assert f["state"] in ("ok", "less", "missing"), f
    assert f["value"] if f["state"] == "ok" else f["missing"] and f["fallback"], f
kvm = doctor["kvm"]
assert kvm["verdict"] in ("hardware", "emulated", "unusable", "none"), kvm
if kvm["verdict"] in ("hardware", "emulated"):
    slow = kvm["guest_ns_per_turn"] > 10 * kvm["host_ns_per_turn"]
    assert slow == (kvm["verdict"] == "emulated"), kvm
else:
    assert kvm["reason"], kvm
assert (kvm["verdict"] == "hardware") == (facts["kvm"]["state"] == "ok")
EOF
echo "KVM here: $(python3 -c 'import json, sys; print(json.load(sys.stdin)["kvm"]["verdict"])' <"$TMP/json")"

# Who knows the first word of a command is told the others.
wisp vm --help | grep -q "^  vm start " || fail "wisp vm --help"
! wisp vm --help | grep -q "^  lab up " || fail "wisp vm --help lists other commands"
refuse 2 "  vm start " wisp vm
refuse 2 'no command "vm fly" (wisp vm --help lists them)' wisp vm fly
refuse 2 'no command "fly" (wisp --help lists them)' wisp fly high
