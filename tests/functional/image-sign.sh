#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# wisp image sign and verify: who signed; what was changed, is signed by others or not at all is
# refused where a signature is asked for.
. "$(dirname "$0")/lib.sh"

export WISP_HOME="$TMP/home"
for tool in mmdebstrap sqfstar unsquashfs unshare openssl; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
cd "$TMP"
mkdir keys
for who in ann eve; do
	openssl genpkey -algorithm ed25519 -out $who.key 2>/dev/null
	openssl pkey -in $who.key -pubout -out $who.pub
done
cp ann.pub keys
cp "$TOP/images/minimal.yaml" .
wisp image build -q minimal.yaml -o ground
folder=$WISP_HOME/images/ground
printf 'base: image:ground\nsigned: yes\n' >upon.yaml

# Not signed.
expect "not signed" "$(wisp image verify --keys keys ground)" "ground: ok, not signed"
refuse 1 "image ground is not signed" wisp image build --keys keys upon.yaml
refuse 2 "--key is needed" wisp image sign ground
refuse 2 "give one image's name" wisp image sign --key ann.key
refuse 1 "no image none" wisp image sign none --key ann.key
refuse 1 "is no Ed25519 private key" wisp image sign ground --key minimal.yaml

# No VM starts: admission comes before all else (a kernel that is not there ends it behind that).
start() {
	wisp vm start never --image "$@" --kernel /none
}
refuse 1 "--kernel /none is neither" start ground
refuse 1 "a signed image is asked for: image ground is not signed" start ground --signed
refuse 1 "image ground is not signed" start ground --keys keys

# Signed by a key that is trusted; the digest is as before.
digest=$(wisp image show ground | grep '^digest')
wisp image sign ground --key ann.key
expect "signed" "$(wisp image verify --keys keys ground)" "ground: ok, signed by ann"
expect "digest" "$(wisp image show ground | grep '^digest')" "$digest"
wisp image build -q --keys keys upon.yaml
wisp image verify --keys keys upon | grep -q "not signed" || fail "a new image is signed"
refuse 1 "--kernel /none is neither" start ground --keys keys
refuse 1 "cannot read the folder of keys none" start ground --keys none
# Built of an environment that asks for it.
refuse 1 "the environment it was built of says signed: yes: image upon is not signed" start upon
wisp image sign upon --key ann.key
refuse 1 "--kernel /none is neither" start upon --keys keys

# By one that is not.
wisp image sign ground --key eve.key
refuse 1 "image ground is signed by a key that is not in keys" wisp image verify --keys keys ground
refuse 1 "a key that is not in keys" wisp image build --keys keys upon.yaml
refuse 1 "cannot read the folder of keys none" wisp image verify --keys none ground

# Changed since: the manifest (not in its meaning: in any byte), the signature, a part.
wisp image sign ground --key ann.key
cp "$folder/manifest.json" "$folder/manifest.sig" .
echo >>"$folder/manifest.json"
refuse 1 "its signature does not belong to it" wisp image verify --keys keys ground
refuse 1 "its signature does not belong to it" wisp image build --keys keys upon.yaml
cp manifest.json "$folder"
for change in 's/^key: ./key: /' 's/signature 1/signature 2/' '$d' 's/$/ /'; do
	sed "$change" manifest.sig >"$folder/manifest.sig"
	refuse 1 "manifest.sig is no signature" wisp image verify --keys keys ground
done
cp manifest.sig "$folder"
wisp image verify --keys keys ground
printf '\001' | dd of="$folder/initrd" bs=1 seek=4321 conv=notrunc 2>/dev/null
refuse 1 "initrd is damaged" wisp image verify --keys keys ground
refuse 1 "initrd is damaged" wisp image sign ground --key ann.key
refuse 1 "initrd is damaged" start ground --keys keys
exit 0
