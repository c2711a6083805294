#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shares of a cluster that root's wispd makes: what comes to the user's files by them and what not,
# whoever it is in the guest, also after a checkpoint. Alone: tests/run cluster-share
# shellcheck disable=SC2034 # cluster-lib.sh's
CLUSTER_NODES=1
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/cluster-lib.sh"
wisp image build -q "$TOP/images/mpi.yaml" -o mpi
mkdir -p "$SHARED"
cat >"$SHARED/env.yaml" <<END
base: image:mpi
vms: 1
memory: 192M
shares:
  mine: {source: $SHARED/ann, target: /mine}
  fixed: {source: $SHARED/fixed, target: /fixed, readonly: yes}
END
cluster_image "$SHARED/env.yaml" share
start_cluster_lab ann bob
mkdir -m 700 "$SHARED/ann"
mkdir -m 777 "$SHARED/fixed" "$SHARED/saved"
for user in ann bob root; do
	echo "$user's" >"$SHARED/ann/of-$user"
	chmod 600 "$SHARED/ann/of-$user"
	on node1 chown "$user" "$SHARED/ann/of-$user"
done
ln -s "$SHARED/env.yaml" "$SHARED/ann/out"
on node1 chown ann "$SHARED/ann"
as ann node1 wisp run -q -d --nodes node1 --name share --image share "$SHARED/env.yaml" -- sleep 100000

# guest COMMAND...: as root of the VM
guest() {
	as ann node1 wisp cluster exec share -- "$@"
}
owner() {
	on node1 stat -c %U "$SHARED/ann/$1"
}

echo "files that are the user's, and what the guest makes"
expect "ann's own" "$(guest cat /mine/of-ann)" "ann's"
guest sh -c 'echo by root >/mine/by-root'
as ann node1 wisp cluster exec -u ann share -- sh -c 'echo by ann >/mine/by-ann'
for file in by-root by-ann; do
	expect "whose $file is" "$(owner $file)" ann
done

echo "what is not the user's"
for file in of-bob of-root out; do
	! guest cat "/mine/$file" 2>/dev/null || fail "the guest has read $file"
	! guest sh -c "echo x >>/mine/$file" 2>/dev/null || fail "the guest has written to $file"
done
for to in 0 "$(on node1 id -u bob)"; do
	guest chown "$to" /mine/of-ann 2>/dev/null || :
	expect "whose of-ann is" "$(owner of-ann)" ann
done
! guest mknod /mine/null c 1 3 2>/dev/null || fail "the guest has made a device"
! guest touch /fixed/new 2>/dev/null || fail "the guest has written to a share that is read-only"
expect "in it" "$(ls "$SHARED/fixed")" ""

echo "after a checkpoint"
as ann node1 wisp cluster checkpoint share --to "$SHARED/saved" --live >/dev/null
expect "ann's own" "$(guest cat /mine/by-ann)" "by ann"
as ann node1 wisp cluster stop share
