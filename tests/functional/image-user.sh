#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An image of an ordinary user, in a user namespace: built, killed half way, cleaned up. As root
# it is that of an account made for the test and removed again. Alone: tests/run image-user
. "$(dirname "$0")/lib.sh"
for tool in mmdebstrap sqfstar unsquashfs unshare newuidmap; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done

# What the user does; $1 is a folder of theirs.
cat >"$TMP/as-user" <<'EOF'
set -eu
cd "$1"
export WISP_HOME="$1/home" WISP_CACHE="$1/cache" TMPDIR="$1"
printf 'packages: []\nsteps: ["install -d -o games /srv/of-games"]\n' >user.yaml
[ "$(id -u)" != 0 ]
wisp image build user.yaml 2>killed &
build=$!
tries=0
until ls wisp-image-*/mmdebstrap.*/var/lib/dpkg/status >/dev/null 2>&1; do
	tries=$((tries + 1))
	[ $tries -lt 900 ] || { cat killed >&2; exit 1; }
	sleep 0.1
done
sleep 3
kill -KILL $build
wait $build || true
[ -z "$(wisp image list --names)" ]
wisp image build user.yaml
wisp image verify user
unsquashfs -ll home/images/user/root.squashfs >list
grep -q '^drwxr-xr-x root/root .* squashfs-root$' list
grep -q '^drwxr-xr-x games/root .* squashfs-root/srv/of-games$' list
grep -q '^-rwsr-xr-x root/root .* squashfs-root/usr/bin/su$' list
# Upon that image, and upon a container image: owners are kept, the image's programs run.
printf 'base: image:user\nsteps: ["install -d -o news /srv/of-news"]\n' >upon.yaml
wisp image build upon.yaml
unsquashfs -ll home/images/upon/root.squashfs >list
grep -q '^drwxr-xr-x games/root .* squashfs-root/srv/of-games$' list
grep -q '^drwxr-xr-x news/root .* squashfs-root/srv/of-news$' list
if command -v skopeo >/dev/null && command -v umoci >/dev/null && command -v busybox >/dev/null; then
	mkdir -p tree/bin tree/srv
	cp "$(command -v busybox)" tree/bin/sh
	tar -C tree --owner=5 --group=60 --numeric-owner -cf layer.tar .
	umoci init --layout layout
	umoci new --image layout:v1
	umoci raw add-layer --image layout:v1 layer.tar
	printf 'base: "oci:oci:%s/layout:v1"\nsteps: ["test -c /dev/null && echo $$ >/srv/pid"]\n' "$1" >box.yaml
	wisp image build box.yaml
	unsquashfs -ll home/images/box/root.squashfs >list
	grep -q '^drwxr-xr-x games/games .* squashfs-root/srv$' list
	grep -q '^-rw-r--r-- root/root .* squashfs-root/srv/pid$' list
fi
! ls -d wisp-image-* cache/*/.tmp-* home/images/.tmp-* 2>/dev/null
echo done
EOF

if [ "$(id -u)" != 0 ]; then
	unshare --map-root-user --map-auto true 2>/dev/null ||
		skip "no user namespace with several users (/etc/subuid, uidmap)"
	expect result "$(sh "$TMP/as-user" "$TMP" | tail -n 1)" done
	exit
fi

user=wisp-test-$$
useradd --no-create-home --shell /bin/sh $user
# --force: a zombie that the machine's init has not collected yet is no reason to keep it.
at_exit "userdel --force $user 2>/dev/null"
grep -q "^$user:" /etc/subuid || skip "useradd gives no subordinate users"
# The programs and the user's folder where that user can reach them.
chmod 755 "$TMP"
mkdir "$TMP/bin" "$TMP/user"
cp "$WISP_BUILD/src/cli/wisp" "$WISP_BUILD/src/agent/wisp-agent" "$WISP_BUILD/src/agent/wisp-rsh" \
	"$TMP/bin"
chown $user "$TMP/user"
chmod 700 "$TMP/user"
expect result "$(setpriv --reuid $user --regid $user --init-groups env -i \
	"PATH=$TMP/bin:/usr/sbin:/usr/bin:/sbin:/bin" "HOME=$TMP/user" \
	sh "$TMP/as-user" "$TMP/user" | tail -n 1)" done
