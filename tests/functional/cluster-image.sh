#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An ordinary user's own image, which one of two nodes has: the other fetches it. And an
# administrator's rule for images, which the user does not get round. Alone: tests/run cluster-image
CLUSTER_NODES=2
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/cluster-lib.sh"
command -v openssl >/dev/null || skip "no openssl"
NODES=node1,node2@10.77.0.3
# Nodes have the files of this machine: what root has in its own place here, root vouches for there.
mkdir -p "$SHARED/key-of-site"
WISP_HOME="$SHARED/built" wisp image build -q "$TOP/images/minimal.yaml" -o private
folder=$SHARED/built/images/private
cp -a "$folder" "$SHARED/private"
openssl genpkey -algorithm ed25519 -out "$SHARED/site.key" 2>/dev/null
openssl pkey -in "$SHARED/site.key" -pubout -out "$SHARED/key-of-site/site.pub"
printf 'base: image:private\nvms: 2\nmemory: 256M\n' >"$SHARED/env.yaml"
start_cluster_lab ann
for n in 1 2; do
	on "node$n" sh -c "mkdir -p /etc/wisp && ln -s '$SHARED/key-of-site' /etc/wisp/keys.d"
done

images=/home/ann/.local/share/wisp/images
as ann node1 sh -c "mkdir -p $images && cp -r '$SHARED/private' $images"
# run OPTION...: who is there, by way of all VMs
run() {
	as ann node1 wisp run --json --nodes "$NODES" --name one "$@" "$SHARED/env.yaml" -- sh -c 'hostname; getent hosts one-1' \
		>"$TMP/out" 2>"$TMP/err" </dev/null
}
run || {
	cat "$TMP/err" >&2
	fail "the first run"
}
expect "output" "$(tr -s ' \n' ' ' <"$TMP/out")" "one-0 10.78.0.3 one-1 "
grep '"stage":"image"' "$TMP/err" | grep -q '"unit":"MiB"' || fail "nobody hears how the image comes"
as ann node2 wisp image verify private
run || fail "a second run"
! grep -q '"unit":"MiB"' "$TMP/err" || fail "the image comes again"

echo "a rule for images"
printf 'rule: ours\nbase: "image:private"\n' >"$SHARED/policy.d/site.yaml"
! run || fail "an image of a user's own runs under a rule for images"
grep -q "rule ours of this site .* does not let image private run: image private is not signed" "$TMP/err" || {
	cat "$TMP/err" >&2
	fail "refused for another reason"
}
expect "clusters" "$(as ann node1 wisp cluster list --names)" ""
mkdir -p "$SHARED/signed/images"
cp -a "$folder" "$SHARED/signed/images"
WISP_HOME="$SHARED/signed" wisp image sign private --key "$SHARED/site.key"
as ann node1 cp "$SHARED/signed/images/private/manifest.sig" "$images/private"
run || {
	cat "$TMP/err" >&2
	fail "one that the site has signed"
}
