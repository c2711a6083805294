#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Images in several places: which one a name means, digests, and what others could change.
. "$(dirname "$0")/lib.sh"

export WISP_HOME="$TMP/home" WISP_STORE="$TMP/none:$TMP/share/images:$TMP/more"
for tool in mmdebstrap sqfstar unsquashfs unshare; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
cd "$TMP"
start() {
	wisp vm start never --kernel /none --image "$@"
}
digest_of() {
	wisp image show "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])'
}
cp "$TOP/images/minimal.yaml" .
wisp image build -q minimal.yaml -o ground
digest=$(digest_of ground)
mkdir -p share
mv home/images share/images
chmod -R go+rX,go-w share

# It is there for everybody now, by its name and by its content.
wisp image list | grep -q "^ground .* $TMP/share/images/ground\$" || fail "no ground: $(wisp image list)"
expect "by digest" "$(digest_of "@sha256:$digest")" "$digest"
expect "by both" "$(digest_of "ground@sha256:$digest")" "$digest"
refuse 1 "which is not yours" wisp image remove ground
printf 'base: image:ground\nsteps: ["echo own >/srv/own"]\n' >grown.yaml
wisp image build -q grown.yaml -o ground 2>/dev/null && fail "an image of itself"
wisp image build -q grown.yaml
printf 'base: "image:@sha256:%s"\n' "$digest" >pinned.yaml
wisp image build -q pinned.yaml

# One of the user's own hides it; the digest still finds it.
mv home/images/grown home/images/ground
expect "which" "$(wisp image show ground --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["place"])')" own
expect "where" "$(wisp image show "ground@sha256:$digest" | sed -n 's/^folder *//p')" \
	"$TMP/share/images/ground (store)"
wisp image list | grep -q "^ground .*/share/images/ground (hidden)\$" || fail "nothing hidden"
expect "names" "$(wisp image list --names | tr '\n' ' ')" "ground pinned "
wisp image list --json | python3 -c '
import json, sys
rows = [(r["name"], r["place"], r.get("hidden", False)) for r in json.load(sys.stdin)]
assert rows[:3] == [("ground", "own", False), ("pinned", "own", False), ("ground", "store", True)], rows'
other=$(digest_of ground)
refuse 1 "image pinned has the digest sha256:" wisp image show "pinned@sha256:$other"
refuse 1 "no image @sha256:" wisp image show "@sha256:$(printf %064d 7)"
refuse 1 'has to be sha256: and 64' wisp image show ground@sha256:12
wisp image remove ground

# A VM's image that is named by its digest has every byte checked.
refuse 1 "--kernel /none is neither" start "@sha256:$digest"
sleep 3
refuse 1 "--kernel /none is neither" start "@sha256:$digest"
printf '\001' | dd of=share/images/ground/root.squashfs bs=1 seek=4321 conv=notrunc 2>/dev/null
refuse 1 "root.squashfs is damaged" start "ground@sha256:$digest"

# What others can change is not used.
for what in . images images/ground images/ground/initrd; do
	mode=$(stat -c %a share/$what)
	chmod g+w share/$what
	refuse 1 "others can write to $TMP/share" wisp image show ground
	chmod "$mode" share/$what
done
wisp image show ground >/dev/null
if [ "$(id -u)" = 0 ]; then
	chown -R 12345 share/images/ground
	refuse 1 "belongs to user 12345" wisp image show ground
	refuse 1 "belongs to user 12345" start ground
fi
WISP_STORE=share refuse 1 '$WISP_STORE has "share", not an absolute path' wisp image list
exit 0
