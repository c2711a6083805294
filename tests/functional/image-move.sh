#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Images go to other machines (folders, here): by files, pipes and from each other; what is cut,
# changed, killed, interrupted or too large leaves no image, and the next try goes on.
. "$(dirname "$0")/lib.sh"

for tool in mmdebstrap sqfstar unsquashfs unshare openssl socat; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
cd "$TMP"
wisp=$WISP_BUILD/src/cli/wisp
cp "$TOP/images/minimal.yaml" .
WISP_HOME=$TMP/a
export WISP_HOME
wisp image build -q minimal.yaml -o m
openssl genpkey -algorithm ed25519 -out me.key 2>/dev/null
mkdir keys
openssl pkey -in me.key -pubout -out keys/me.pub
wisp image sign m --key me.key
digest=$(wisp image show m --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])')

# at HOME COMMAND...: wisp at another machine
at() {
	at_home=$TMP/$1
	shift
	WISP_HOME=$at_home "$wisp" "$@"
}
# check HOME NAME: it is there, whole, signed, with its digest, and nothing else is left
check() {
	expect "$1" "$(at "$1" image verify --keys keys "$2@sha256:$digest")" "$2: ok, signed by me"
	expect "rests in $1" "$(ls -A "$1/images" | grep '^\.[^l]' || :)" ""
	expect "mode in $1" "$(stat -c %a "$1/images/$2/root.squashfs")" \
		"$(stat -c %a a/images/m/root.squashfs)"
}
# nothing HOME: no image is to be seen
nothing() {
	expect "images of $1" "$(at "$1" image list --names)" ""
}

# A file, a pipe; again is nothing; an image of the name.
wisp image export m stream
refuse 1 "cannot make none/stream.part" wisp image export m none/stream
at b image import stream | grep -q '^m: .* MiB came$' || fail "import says nothing"
check b m
expect "again" "$(at b image import -q stream --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["was_there"])')" True
wisp image export -q m - | at c image import - --name other
check c other
printf 'base: image:m\nsteps: ["echo new >/srv/new"]\n' >new.yaml
wisp image build -q new.yaml -o new
wisp image export -q new - | at b image import - --name m >out 2>&1 && fail "another image of the name was taken"
grep -q "image m is there already, with another content" out || fail "$(cat out)"
# The kernel is that of m: it does not come again.
wisp image export -q new - | at b image import -q - --json | python3 -c '
import json, sys
got = json.load(sys.stdin)
assert got["name"] == "new" and got["brought"] < got["size"] * 0.7, got'
at b image remove new >/dev/null
if [ "$(id -u)" = 0 ]; then
	mkdir site
	at d image import stream --into "$TMP/site"
	WISP_STORE=$TMP/site at d image show m | grep -q "site/m (store)" || fail "not in the site's"
fi

# Cut, and changed in the middle; then the whole: what had come does not come again.
size=$(stat -c %s stream)
head -c $((size / 2)) stream >half
refuse 1 "half: the stream ends in the middle" at e image import half
nothing e
cp stream changed
printf '\001' | dd of=changed bs=1 seek=$((size * 3 / 4)) conv=notrunc 2>/dev/null
refuse 1 "changed: chunk" at e image import changed
nothing e
cat half | at e image import - >/dev/null 2>&1 && fail "a half was taken"
at e image import -q stream --json | python3 -c '
import json, sys
got = json.load(sys.stdin)
assert 0 < got["brought"] < got["size"] * 0.6, got'
check e m
refuse 1 "it is no stream of an image" at e image import minimal.yaml
refuse 1 "the stream ends in the middle" at e image import /dev/null

# Killed and interrupted in the middle.
for signal in KILL INT; do
	WISP_HOME=$TMP/f python3 - "$wisp" $signal <<'E' || fail "import and SIG$signal"
import signal, subprocess, sys, time
name = "SIG" + sys.argv[2]
done = subprocess.Popen([sys.argv[1], "image", "import", "-"], stdin=subprocess.PIPE)
done.stdin.write(open("half", "rb").read())
done.stdin.flush()
time.sleep(0.5)
done.send_signal(getattr(signal, name))
code = done.wait(20)
assert code == (-9 if name == "SIGKILL" else 130), code
E
	nothing f
done
at f image import -q stream --json | python3 -c '
import json, sys
got = json.load(sys.stdin)
assert got["brought"] < got["size"] * 0.6, got'
check f m

# Several at once.
for i in 1 2 3; do
	at g image import -q stream --json >"g$i" &
	eval "g$i=\$!"
done
wait "$g1" && wait "$g2" && wait "$g3" || fail "of several imports at once one failed"
expect "who brought it" "$(cat g1 g2 g3 | grep -c '"was_there": false')" 1
check g m

# No room.
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=40m tmpfs small 2>/dev/null; then
	at_exit "umount '$TMP/small'"
	refuse 1 "the image needs" at small image import stream
	nothing small
	expect "left on the full disk" "$(find small/images -mindepth 1 ! -name .lock)" ""
	mkdir small/out
	refuse 1 "No space left" wisp image export m small/out/stream
	expect "left of the export" "$(ls small/out)" ""
fi

# From each other: a chain of three, all at once; over TCP.
chain() {
	at "$1" image fetch -q --json "@sha256:$digest" \
		env "WISP_HOME=$TMP/$2" "$wisp" image serve --wait 20
}
chain j i >j.json &
last=$!
chain i h >i.json &
middle=$!
sleep 0.3
chain h a >h.json
wait $last
wait $middle
for home in h i j; do
	check $home m
	grep -q '"was_there": false' $home.json || fail "$home had it"
done
socat TCP-LISTEN:0,bind=127.0.0.1,fork EXEC:"$wisp image serve" 2>socat.log &
socat=$!
at_exit "kill $socat 2>/dev/null || :"
tries=0
until port=$(ss -ltnpH | sed -n "s/.*127.0.0.1:\([0-9]*\) .*pid=$socat,.*/\1/p") && [ -n "$port" ]; do
	tries=$((tries + 1))
	[ $tries -lt 100 ] || fail "no listener"
	sleep 0.1
done
at k image fetch -q "@sha256:$digest" socat - "TCP:127.0.0.1:$port"
check k m
kill $socat

from_a="env WISP_HOME=$TMP/a $wisp image serve"
# From one that dies in the middle, then from another: only the rest comes.
cat >first.py <<'E'
import os, sys
left = int(sys.argv[1])
while left > 0:
    data = os.read(0, min(left, 65536))
    os.write(1, data)
    left -= len(data)
E
refuse 1 "ends" at l image fetch "@sha256:$digest" \
	sh -c "$from_a 2>/dev/null | python3 first.py $((size / 2))"
nothing l
at l image fetch -q --json "@sha256:$digest" $from_a | python3 -c '
import json, sys
got = json.load(sys.stdin)
assert 0 < got["brought"] < got["size"] * 0.6, got'
check l m
refuse 1 "the source says: no image" \
	at n image fetch "@sha256:$(printf %064d 7)" $from_a
refuse 1 "the stream" at n image fetch "@sha256:$digest" true
refuse 1 "/nonexistent" at n image fetch "@sha256:$digest" /nonexistent
refuse 2 "names no digest" at n image fetch m $from_a
refuse 1 "is no digest" at n image fetch @sha256:12 $from_a
nothing n
exit 0
