#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The disks of a VM in its checkpoints: content, damage, what was written since, shared blocks.
# File systems are mounted where nobody else sees them, and gone with us.
if [ "$(id -u)" = 0 ] && [ -z "${DISKS_APART-}" ] && unshare -m true 2>/dev/null; then
	DISKS_APART=1 exec unshare -m "$0" "$@"
fi
. "$(dirname "$0")/bare-lib.sh"

PATH=$WISP_BUILD/src/mover:$PATH

# vm DISK [OPTION...]: a VM with that disk.
vm() {
	vm_disk=$1
	shift
	wisp-vmm --control "$CONTROL" -m 32 --device "block,path=$vm_disk" "$@" \
		>"$TMP/out" 2>"$TMP/err" </dev/null &
	vm=$!
	wait_for "the control socket" [ -S "$CONTROL" ]
}
end() {
	kill -9 "$vm"
	wait "$vm" 2>/dev/null || true
	vm=
	rm -f "$CONTROL"
}
save() {
	wisp-mover checkpoint --control "$CONTROL" --dir "$dir/c" --json "$@" >"$TMP/report"
}
# restore DISK [OPTION...]: into a new VM; in $TMP/report what came of it.
restore() {
	restore_disk=$1
	shift
	vm "$restore_disk" --incoming
	rc=0
	wisp-mover restore --control "$CONTROL" --dir "$dir/c" --json "$@" \
		>"$TMP/report" 2>"$TMP/said" || rc=$?
	end
}
said() {
	grep -q "$1" "$TMP/said" || fail "not \"$1\" but: $(cat "$TMP/said")"
}
# How a disk was copied, put back...
done_to() {
	python3 -c 'import json, sys
done = json.load(open(sys.argv[1]))["disks"]["block0"]
print(done["how"] if isinstance(done, dict) else done)' "$TMP/report" 2>/dev/null || cat "$TMP/said"
}
sum() {
	sha256sum <"$1"
}
inode() {
	stat -c %i "$1"
}

# disks HOW: all of it in $dir, where disks are cloned or copied.
disks() {
	truncate -s 64M "$dir/disk"
	head -c 3000000 /dev/urandom | dd of="$dir/disk" bs=1M seek=20 conv=notrunc status=none
	first=$(sum "$dir/disk")
	vm "$dir/disk" -k "$GUEST" -a work=4096
	save
	expect "how it was saved" "$(done_to)" "$1"
	save --live --incremental
	expect "one file for an unchanged disk" "$(inode "$dir/c/1/disk.block0")" \
		"$(inode "$dir/c/2/disk.block0")"
	# As the guest would.
	printf changed | dd of="$dir/disk" bs=1 seek=5000 conv=notrunc status=none
	second=$(sum "$dir/disk")
	save --incremental --compress lz4
	end
	wisp checkpoint verify "$dir/c" >/dev/null
	wisp checkpoint show "$dir/c" | grep -q "disk  *block0, 64" || fail "show does not show it"
	[ "$(du -k "$dir/c/3/disk.block0" | cut -f1)" -lt 8000 ] || fail "holes were stored"

	restore "$dir/disk"
	expect "a disk that is as it was" "$(done_to)" unchanged
	restore "$dir/disk" --at 2
	expect "refused" "$rc" 1
	said "was written since epoch 2"
	expect "nothing done" "$(sum "$dir/disk")" "$second"
	restore "$dir/disk" --at 2 --force --lazy
	expect "put back" "$(done_to) $(sum "$dir/disk")" "restored $first"
	truncate -s 64M "$dir/new"
	restore "$dir/new"
	expect "a new file" "$(done_to) $(sum "$dir/new")" "restored $second"
	[ "$(du -k "$dir/new" | cut -f1)" -lt 8000 ] || fail "holes were written"

	wisp checkpoint merge "$dir/c" --at 3 >/dev/null
	wisp checkpoint prune "$dir/c" --keep 1 >/dev/null
	wisp checkpoint verify "$dir/c" >/dev/null
	restore "$dir/disk" --force
	expect "after a merge" "$(sum "$dir/disk")" "$second"
}

# What the VM has written and its host has not yet, is in a clone; a clone stays as it was.
cloned_meanwhile() {
	rm -rf "$dir/c"
	head -c 64M /dev/urandom >"$dir/disk"
	written=$(sum "$dir/disk")
	vm "$dir/disk" -k "$GUEST" -a work=4096
	save --live
	printf later | dd of="$dir/disk" bs=1 seek=70000 conv=notrunc status=none
	end
	expect "how it was saved" "$(done_to)" cloned
	expect "the clone" "$(sum "$dir/c/1/disk.block0")" "$written"
	restore "$dir/disk" --force
	expect "put back" "$(done_to) $(sum "$dir/disk")" "restored $written"
}

# report EXPRESSION: of a report r, whose disk is d.
report() {
	python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
d = r["disks"]["block0"]
print(eval(sys.argv[2]))' "$TMP/report" "$1"
}

runs() {
	[ "$(ask status state)" = running ]
}

# The VM runs on while a large disk is copied, and when who copies it is killed.
while_it_runs() {
	rm -rf "$dir/c"
	head -c 256M /dev/urandom >"$dir/large"
	truncate -s 1M "$dir/only-read"
	only_read="--device block,path=$dir/only-read,readonly"
	vm "$dir/large" $only_read -k "$GUEST" -a work=4096
	save
	expect "bytes that were copied" "$(report 'd["bytes"]')" 268435456
	expect "copied while it runs" "$(report 'r["pause_ns"] < d["ns"]')" True
	for i in 1 2 3; do
		wisp-mover checkpoint --control "$CONTROL" --dir "$dir/c" >"$TMP/said" 2>&1 &
		mover=$!
		wait_for "the copy" [ -s "$dir/c/.tmp-2/disk.block0" ]
		sleep 0.0$i
		kill -9 "$mover"
		wait "$mover" 2>/dev/null || true
		wait_for "the VM" runs
		expect "epochs" "$(ls "$dir/c")" 1
	done
	# What belongs to a connection is gone with it; a VM that runs has no moment to copy.
	PYTHONPATH=$TOP/tests/functional python3 - "$CONTROL" "$dir/large" <<-'END'
		import os, sys
		from vmm_client import Refused, Vmm
		def refused(number, *args, **more):
		    try:
		        vmm.ask(*args, **more)
		    except Refused as e:
		        assert e.errno == number, e
		    else:
		        raise SystemExit(f"{args} is not refused")
		vmm, other = Vmm(sys.argv[1]), Vmm(sys.argv[1])
		copy = os.memfd_create("copy")
		os.truncate(copy, os.path.getsize(sys.argv[2]))
		refused(16, "disk-copy-start", id="block0", fd=copy)
		vmm.ask("pause", hold=True)
		refused(2, "disk-copy-start", id="block2", fd=copy)
		# One that is only read can be had, and is none of those that belong to the VM.
		assert [d["id"] for d in vmm.ask("disks")["disks"]] == ["block0"]
		refused(30, "disk-copy-start", id="block1", fd=copy)
		vmm.ask("disk", id="block1")
		assert os.fstat(vmm.fds.pop()).st_size == 1 << 20
		refused(22, "disk-copy-start", id="block0")
		refused(22, "disk-copy-start", id="block0", fd=0)
		refused(2, "disk-copy-stop", id="block0")
		vmm.ask("disk-copy-start", id="block0", fd=copy)
		shared = vmm.fds.pop()
		assert os.fstat(shared).st_size == 256 * 16 + 1
		try:
		    os.truncate(shared, 0)
		except PermissionError:
		    pass
		else:
		    raise SystemExit("what is shared can be cut")
		refused(16, "disk-copy-start", id="block0", fd=copy)
		vmm.close()
		while os.pread(shared, 1, 256 * 16) != b"\1":
		    pass
		other.ask("pause", hold=True)
		other.ask("disk-copy-start", id="block0", fd=copy)
		other.ask("resume")
		assert other.ask("disk-copy-stop", id="block0")["bytes"] == 0
	END
	wisp-mover checkpoint --control "$CONTROL" --dir "$dir/c" --incremental >"$TMP/said"
	end
	said '^epoch 2 on epoch 1: [0-9]* MiB written in [0-9.]* s and 1 round ([0-9]* pages, [0-9]* zero), paused for [0-9.]* ms$'
	said '^disk block0: copied 256 MiB in [0-9.]* s$'
	truncate -s 256M "$dir/back"
	vm "$dir/back" $only_read --incoming
	wisp-mover restore --control "$CONTROL" --dir "$dir/c" >"$TMP/said"
	end
	said '^epoch 2: [0-9]* MiB read, ready after [0-9.]* s, memory there after [0-9.]* s$'
	said '^disk block0: restored$'
	cmp "$dir/large" "$dir/back" || fail "the disk has another content"
	rm "$dir/large" "$dir/back"
}

refusals() {
	vm "$dir/disk" -k "$GUEST" -a work=4096
	vm_first=$vm first_control=$CONTROL CONTROL=$TMP/control2
	restore "$dir/disk" --force
	expect "a disk in use" "$rc" 1
	said "does the VM still run"
	CONTROL=$first_control vm=$vm_first
	end
	truncate -s 32M "$dir/short"
	restore "$dir/short"
	said "truncate -s 67108864"
	CONTROL=$TMP/control3
	wisp-vmm --control "$CONTROL" -m 32 --incoming >"$TMP/out" 2>"$TMP/err" </dev/null &
	vm=$!
	wait_for "the control socket" [ -S "$CONTROL" ]
	if wisp-mover restore --control "$CONTROL" --dir "$dir/c" 2>"$TMP/said"; then
		fail "restored into a VM without the disk"
	fi
	said "start it with one"
	end
	printf x | dd of="$dir/c/3/disk.block0" bs=1 seek=21000000 conv=notrunc status=none
	restore "$dir/disk" --force
	said "is damaged"
	if wisp checkpoint verify "$dir/c" >/dev/null 2>&1; then
		fail "damage of a disk is not found"
	fi
	# A good copy does not become the same file as a damaged one.
	vm "$dir/disk" -k "$GUEST" -a work=4096
	save --incremental
	end
	expect "the damage is told" "$(report 'd["parent_damaged"]')" True
	rm -f "$dir/new"
	truncate -s 64M "$dir/new"
	restore "$dir/new" --at 4
	expect "from the good one" "$rc $(sum "$dir/new")" "0 $second"
	# One that is shared is damaged for both.
	vm "$dir/disk" -k "$GUEST" -a work=4096
	save --incremental
	end
	expect "one file" "$(inode "$dir/c/4/disk.block0")" "$(inode "$dir/c/5/disk.block0")"
	printf x | dd of="$dir/c/4/disk.block0" bs=1 seek=21000000 conv=notrunc status=none
	for epoch in 4 5; do
		if wisp checkpoint verify "$dir/c" --at $epoch >/dev/null 2>"$TMP/said"; then
			fail "damage of the disk in epoch $epoch is not found"
		fi
		said "$epoch/disk.block0 is damaged"
	done
}

# Nothing is written to a disk before all of the checkpoint was found good.
whole_or_nothing() {
	rm -rf "$dir/c"
	vm "$dir/disk" -k "$GUEST" -a work=4096
	save
	end
	printf newer | dd of="$dir/disk" bs=1 seek=5000 conv=notrunc status=none
	newer=$(sum "$dir/disk")
	python3 - "$dir/c/1/pages.0" <<-'END'
		import sys
		with open(sys.argv[1], "r+b") as f:
		    f.seek(5000)
		    byte = f.read(1)[0]
		    f.seek(5000)
		    f.write(bytes([byte ^ 1]))
	END
	for how in "" --lazy; do
		restore "$dir/disk" --force $how
		expect "damaged memory" "$rc" 1
		said "damaged"
		expect "the disk" "$(sum "$dir/disk")" "$newer"
	done
}

# wisp vm restore makes disks, where it is told to, and whole. No VM is started: it fails there.
made() {
	rm -rf "$dir/c"
	head -c 96M /dev/urandom >"$dir/named"
	whole=$(sum "$dir/named")
	echo '{"name": "t", "address": "10.1.1.2", "prefix": 24, "network": "t",
		"disks": [{"path": "'"$dir/named"'", "readonly": false}]}' >"$TMP/config"
	vm "$dir/disk" --device "block,path=$dir/named" -k "$GUEST" -a work=4096
	save --config "$TMP/config"
	end
	vm_restore() {
		rc=0
		WISP_RUN=/proc wisp vm restore "$dir/c" "$@" >"$TMP/said" 2>&1 || rc=$?
		expect "no VM can run here" "$rc" 1
	}
	vm_restore
	mkdir "$dir/gone"
	mv "$dir/named" "$dir/gone"
	vm_restore
	said "named, as the checkpoint calls it, is not there: --disk PATH"
	[ ! -e "$dir/named" ] || fail "made where only the checkpoint says"
	truncate -s 96M "$dir/named"
	vm_restore
	said "is empty: --disk PATH"
	rm "$dir/named"
	vm_restore --force
	if grep -q "disk" "$TMP/said"; then fail "not made: $(cat "$TMP/said")"; fi
	rm -f "$dir/new"
	for i in 02 08 15 22 30; do
		WISP_RUN=/proc wisp vm restore "$dir/c" --disk "$dir/new" >/dev/null 2>&1 &
		wisp=$!
		sleep 0.$i
		kill -9 $wisp
		wait $wisp 2>/dev/null || true
		[ ! -e "$dir/new" ] || expect "content" "$(sum "$dir/new")" "$whole"
		rm -f "$dir/new"
	done
	expect "nothing is left" "$(ls "$dir" | grep -c new)" 0
	dd if=/dev/zero of="$dir/c/1/disk.block1" bs=1 seek=21000000 count=64 conv=notrunc status=none
	vm_restore --disk "$dir/new"
	said "1/disk.block1 is damaged"
	[ ! -e "$dir/new" ] || fail "made of what is damaged"
}

# Who takes a disk over finds what was written: a VM whose disk cannot be synced is not saved.
not_synced() {
	export LD_PRELOAD="$WISP_BUILD/tests/broken-disk.so"
	export BROKEN_CALL=sync BROKEN_PATH="$dir/disk" BROKEN_FROM=1
	vm "$dir/disk" -k "$GUEST" -a work=4096
	unset LD_PRELOAD BROKEN_CALL
	if save 2>"$TMP/said"; then
		fail "saved without its disk"
	fi
	said "cannot sync disk"
	runs || fail "the VM does not run on"
	end
}

# What a restore that dies leaves is filled by --again, and nothing else is.
half_filled() {
	for how in "" --lazy; do
		rm -f "$dir/new"
		truncate -s 64M "$dir/new"
		export LD_PRELOAD="$WISP_BUILD/tests/broken-disk.so"
		export BROKEN_CALL=write BROKEN_PATH="$dir/new" BROKEN_FROM=20
		restore "$dir/new" $how
		unset LD_PRELOAD BROKEN_CALL
		expect "a disk that cannot be filled" "$rc" 1
		half=$(sum "$dir/new")
		restore "$dir/new" $how
		expect "half of a disk" "$rc $(sum "$dir/new")" "1 $half"
		said "has a part of what it had in epoch 3 .*: --again fills it"
		printf x | dd of="$dir/new" bs=1 seek=62999552 conv=notrunc status=none
		restore "$dir/new" $how --again
		expect "half of a disk that was written" "$rc" 1
		said "was written since epoch 3 (byte 62999552 is"
		dd if=/dev/zero of="$dir/new" bs=1 seek=62999552 count=1 conv=notrunc status=none
		expect "nothing done" "$(sum "$dir/new")" "$half"
		restore "$dir/new" $how --again
		expect "filled" "$(done_to) $(sum "$dir/new")" "restored $second"
		restore "$dir/new" --again
		expect "filled already" "$(done_to)" unchanged
		export LD_PRELOAD="$WISP_BUILD/tests/broken-disk.so" BROKEN_CALL=write BROKEN_FROM=1
		restore "$dir/new" --force
		unset LD_PRELOAD BROKEN_CALL
		expect "nothing to put back" "$rc $(done_to)" "0 unchanged"
	done
}

dir=$TMP
disks copied
half_filled
not_synced
refusals
whole_or_nothing
made
while_it_runs

# shared TYPE: on a file system that can have blocks of two files in common.
shared() {
	dir=$TMP/$1
	mkdir "$dir"
	truncate -s 400M "$TMP/$1.image"
	"mkfs.$1" -q "$TMP/$1.image" >/dev/null
	if ! mount -t "$1" -o loop "$TMP/$1.image" "$dir" 2>"$TMP/said"; then
		echo "left out: $1, which is not mounted: $(cat "$TMP/said")"
		return 0
	fi
	at_exit "umount '$dir'"
	disks cloned
	cloned_meanwhile
	echo "cloned on $1"
}
for type in xfs btrfs; do
	if [ "$(id -u)" != 0 ]; then
		echo "left out: $type, needs root to mount one"
	elif ! command -v "mkfs.$type" >/dev/null; then
		echo "left out: $type, there is no mkfs.$type"
	else
		shared "$type"
	fi
done
