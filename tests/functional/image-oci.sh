#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# base: oci:REFERENCE: a container image of our own making becomes the root; what is pinned, what
# happens when its place is gone, and trees that would lead the build elsewhere.
. "$(dirname "$0")/lib.sh"

export WISP_HOME="$TMP/home"
# The kernel is the user's, so that nothing is downloaded twice; everything else is our own.
cache=${WISP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wisp}
export WISP_CACHE="$TMP/cache"
mkdir -p "$WISP_CACHE" "$cache/kernel"
ln -s "$cache/kernel" "$WISP_CACHE/kernel"
for tool in skopeo umoci sqfstar unsquashfs unshare busybox; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
cd "$TMP"

# layer TAG: adds the tree in tree/ as a layer of the image $layout:TAG.
layout=$TMP/layout
umoci init --layout "$layout"
layer() {
	tar -C tree -cf layer.tar .
	umoci new --image "$layout:$1"
	umoci raw add-layer --image "$layout:$1" layer.tar
}
mkdir -p tree/bin tree/etc tree/srv tree/home
cp "$(command -v busybox)" tree/bin/busybox
for name in sh cat id; do ln -s busybox tree/bin/$name; done
echo first >tree/etc/version
ln -s ../../../../../../../../../../../../../etc tree/srv/out
ln -s "$TMP/home" tree/srv/abroad
layer v1

echo "it's data" >data
cat >box.yaml <<Y
base: "oci:oci:$layout:v1"
files: {/srv/deep/data: {from: data, mode: 0640}, /srv/out/put: {from: data}}
steps:
  - cat /srv/deep/data /etc/version >/srv/said
  - test -c /dev/null && test -d /proc/self && test ! -e /srv/abroad/images
  - "[ \$(id -u) = 0 ]"
Y
wisp image build box.yaml
wisp image verify box
root=$WISP_HOME/images/box/root.squashfs
expect said "$(unsquashfs -cat "$root" srv/said)" "it's data
first"
unsquashfs -ll "$root" >list
grep -q '^-rw-r----- root/root .* squashfs-root/srv/deep/data$' list || fail "mode or owner of data"
grep -q '^drwxr-xr-x root/root .* squashfs-root$' list || fail "mode or owner of /"
# The link to /etc led to that of the tree.
grep -q ' squashfs-root/etc/put$' list || fail "nothing in the tree's etc: $(cat list)"
[ ! -e /etc/put ] || fail "the build wrote to our /etc"
grep -q 'squashfs-root/\(dev/null\|proc/.*\|usr/sbin/policy-rc.d\|etc/resolv.conf\)$' list &&
	fail "what the steps needed is in the image"

# Pinned by the digest of its manifest, which skopeo tells too.
digest=$(skopeo inspect --raw "oci:$layout:v1" | sha256sum | cut -d' ' -f1)
wisp image show box --json | python3 -c '
import json, sys
m = json.load(sys.stdin)
assert m["base"] == {"digest": sys.argv[1]}, m["base"]
assert m["environment"]["base"] == "oci:oci:" + sys.argv[2] and m["packages"] == []' \
	"$digest" "$layout:v1"
wisp image build box.yaml 2>&1 | grep -q "up to date" || fail "the same was built again"

# An image of it is a base as any other.
printf 'base: image:box\nsteps: ["echo more >>/srv/said"]\n' >upon.yaml
wisp image build upon.yaml
expect upon "$(unsquashfs -cat "$WISP_HOME/images/upon/root.squashfs" srv/said | tail -n 1)" more

# Of other places the same content.
skopeo copy --quiet "oci:$layout:v1" "dir:$TMP/folder"
skopeo copy --quiet "oci:$layout:v1" "docker-archive:$TMP/archive.tar:some/name:1"
for from in "dir:$TMP/folder" "docker-archive:$TMP/archive.tar"; do
	printf 'base: "oci:%s"\n' "$from" >place.yaml
	wisp image build -q place.yaml
	expect "version of $from" \
		"$(unsquashfs -cat "$WISP_HOME/images/place/root.squashfs" etc/version)" first
done

# The tag moves: another image. Its place is gone: that of last time, and it is said.
echo second >tree/etc/version
layer v2
umoci rm --image "$layout:v1"
umoci tag --image "$layout:v2" v1
wisp image build -q box.yaml
expect "after the tag moved" "$(unsquashfs -cat "$root" srv/said | tail -n 1)" second
mv "$layout" "$layout.gone"
wisp image build box.yaml -o offline 2>notes
grep -q "is the cached one: " notes || fail "nothing is said of the cache: $(cat notes)"
expect offline "$(unsquashfs -cat "$WISP_HOME/images/offline/root.squashfs" srv/said | tail -n 1)" second
printf 'base: "oci:oci:%s:v3"\n' "$layout" >unknown.yaml
refuse 1 "base: oci: oci:$layout:v3: " wisp image build unknown.yaml
mv "$layout.gone" "$layout"

# What it cannot do.
printf 'base: "oci:oci:%s:v1"\npackages: [less]\n' "$layout" >less.yaml
refuse 1 "the base has no apt-get" wisp image build less.yaml
printf 'base: "oci:oci:%s:v1"\nsteps: [exit 3]\n' "$layout" >fails.yaml
refuse 1 "a step failed: exit 3" wisp image build fails.yaml
printf 'base: "oci:oci:layout:v1"\n' >relative.yaml
refuse 1 "the path has to be absolute" wisp image build relative.yaml
mkdir bin
for tool in unshare apt-get apt-cache apt-config dpkg; do
	ln -sf "$(command -v $tool)" bin/$tool
done
refuse 1 "needs skopeo: apt-get install skopeo umoci" \
	env "PATH=$TMP/bin" "$WISP_BUILD/src/cli/wisp" image build box.yaml

# Hostile trees: mount points that are links, no shell, a root that is none.
rm -r tree/etc
ln -s "$TMP" tree/etc
layer evil
printf 'base: "oci:oci:%s:evil"\nsteps: ["true"]\n' "$layout" >evil.yaml
refuse 1 "/etc of the base is a symbolic link" wisp image build evil.yaml
printf 'base: "oci:oci:%s:evil"\nfiles: {/etc/evil: {from: data}}\n' "$layout" >evil.yaml
refuse 1 "cannot make /etc" wisp image build evil.yaml
[ ! -e "$TMP/evil" ] || fail "a link led the build out of the tree"
rm -r tree
mkdir -p tree/srv
layer empty
printf 'base: "oci:oci:%s:empty"\nsteps: ["true"]\n' "$layout" >empty.yaml
refuse 1 "the base has no /bin/sh" wisp image build empty.yaml
expect images "$(wisp image list --names | tr '\n' ' ')" "box offline place upon "
ls -d "$WISP_CACHE"/*/.tmp-* 2>/dev/null && fail "a temporary folder is still there"
exit 0
