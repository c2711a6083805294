#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A virtual function of a node's disk belongs to the VM of a user's cluster while that runs: it reads and
# writes there, nobody else gets it, it is told why it is not saved; then it is root's again, and the next
# user's. Alone: tests/run cluster-device
. "$(dirname "$0")/lib.sh"
CLUSTER_NODES=1 CLUSTER_NVME=1
. "$(dirname "$0")/cluster-lib.sh"
wisp image build -q "$TOP/images/mpi.yaml" -o mpi
mkdir -p "$SHARED"
printf 'base: image:mpi\nmodules: [nvme]\n' >"$SHARED/image.yaml"
cluster_image "$SHARED/image.yaml" nvme
start_cluster_lab ann bob
function=$(on node1 python3 "$TOP/tests/functional/nvme-function.py")
echo "the function: $function"
cat >"$SHARED/env.yaml" <<END
name: dev
memory: 256M
user: root
devices: ["pci:$function"]
END
on node1 sh -c 'printf "%-512s" "of the host" | dd of=/dev/nvme0n1 bs=512 conv=notrunc status=none'
group=$(on node1 sh -c 'basename "$(readlink /sys/bus/pci/devices/'"$function"'/iommu_group)"')
owner() {
	on node1 stat -c %U "/dev/vfio/$group"
}

as ann node1 wisp run --image nvme "$SHARED/env.yaml" -- sh -c 'cat /sys/class/nvme/nvme0/device/class
	dd if=/dev/nvme0n1 bs=512 count=1 status=none; echo
	printf "%-512s" "of the guest" | dd of=/dev/nvme0n1 bs=512 seek=9 conv=notrunc oflag=direct status=none
	grep -c "nvme0q1" /proc/interrupts; touch /tmp/here; while [ ! -e /tmp/go ]; do sleep 0.2; done' \
	</dev/null >"$TMP/out" 2>"$TMP/err" &
job=$!
is_here() {
	as ann node1 wisp cluster exec dev test -e /tmp/here 2>/dev/null
}
wait_for 90 is_here || {
	cat "$TMP/out" "$TMP/err" >&2
	fail "the function does not work in the guest"
}
expect "whose the function is" "$(owner)" ann
refuse 1 "$function" as bob node1 wisp run --image nvme "$SHARED/env.yaml" -- true
refuse 1 "cannot be saved" as ann node1 wisp cluster checkpoint dev --to /home/ann/saved
expect "what is left of that" "$(as ann node1 sh -c 'ls /home/ann/saved 2>/dev/null | grep -c checkpoint || :')" 0
as ann node1 wisp cluster exec dev touch /tmp/go
wait $job || {
	cat "$TMP/err" >&2
	fail "the program failed"
}
grep -q "of the host" "$TMP/out" || fail "the guest did not read what the host wrote: $(cat "$TMP/out")"
on node1 dd if=/dev/nvme0n1 bs=512 skip=9 count=1 iflag=direct status=none | grep -q "of the guest" ||
	fail "the host does not read what the guest wrote"
expect "whose the function is afterwards" "$(owner)" root
as bob node1 wisp run --image nvme "$SHARED/env.yaml" -- dd if=/dev/nvme0n1 bs=512 skip=9 count=1 status=none |
	grep -q "of the guest" || fail "the next user does not get the function"
printf 'checkpoint: {interval: 1m}\n' >"$SHARED/often.yaml"
refuse 1 "cannot be saved" as bob node1 wisp run --image nvme --with "$SHARED/often.yaml" "$SHARED/env.yaml" -- true
printf 'devices: ["pci:0000:99:00.0"]\n' >"$SHARED/none.yaml"
refuse 1 0000:99:00.0 as bob node1 wisp run --image nvme --with "$SHARED/none.yaml" "$SHARED/env.yaml" -- true
