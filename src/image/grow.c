/* SPDX-License-Identifier: Apache-2.0 */
/* The script by which a tree grows that need not be Debian's, and is not trusted. */

#include "image/grow.h"

/*
 * Copies a file to a path in a tree. Links of the tree lead no further than the tree: the file is
 * opened first, then the root is changed.
 */
#define PUT                                                                      \
	"my ($root, $from, $to, $mode) = @ARGV;"                                 \
	"open my $in, '<:raw', $from or die \"E: $from: $!\\n\";"                \
	"chroot $root and chdir '/' or die \"E: $root: $!\\n\";"                 \
	"my ($path, @parts) = ('', split m{/}, substr($to, 1)); pop @parts;"     \
	"for (@parts) {"                                                         \
	"	$path .= \"/$_\";"                                                     \
	"	-d $path or mkdir $path, 0755 or die \"E: cannot make $path: $!\\n\";" \
	"}"                                                                      \
	"unlink $to;"                                                            \
	"open my $out, '>:raw', $to or die \"E: cannot make $to: $!\\n\";"       \
	"$/ = \\65536;"                                                          \
	"while (<$in>) { print $out $_ or die \"E: $to: $!\\n\"; }"              \
	"close $out and chmod oct $mode, $to or die \"E: $to: $!\\n\";"

/*
 * What the tree's own programs need: a /proc, some devices, the resolver. Their mount points must
 * be the tree's, and no service may start.
 */
#define ENTER                                                                                      \
	"enter() {\n"                                                                              \
	"	for part in proc dev etc usr usr/sbin; do\n"                                             \
	"		[ ! -L \"$root/$part\" ] || fail \"/$part of the base is a symbolic "                   \
	"link\"\n"                                                                                 \
	"	done\n"                                                                                  \
	"	mkdir -p \"$root/proc\" \"$root/dev\" \"$root/etc\" \"$root/usr/sbin\"\n"                \
	"	mount -t proc proc \"$root/proc\"\n"                                                     \
	"	mount -t tmpfs -o mode=755 dev \"$root/dev\"\n"                                          \
	"	for node in null zero full random urandom tty; do\n"                                     \
	"		: >\"$root/dev/$node\"\n"                                                               \
	"		mount --bind \"/dev/$node\" \"$root/dev/$node\"\n"                                      \
	"	done\n"                                                                                  \
	"	ln -s /proc/self/fd \"$root/dev/fd\"\n"                                                  \
	"	resolv=$root/etc/resolv.conf policy=$root/usr/sbin/policy-rc.d made=\n"                  \
	"	[ -e \"$resolv\" ] || [ -L \"$resolv\" ] || { : >\"$resolv\"; made=$resolv; }\n"         \
	"	[ -L \"$resolv\" ] || mount --bind /etc/resolv.conf \"$resolv\"\n"                       \
	"	[ -e \"$policy\" ] || [ -L \"$policy\" ] || {\n"                                         \
	"		printf '#!/bin/sh\\nexit 101\\n' >\"$policy\"; chmod 755 \"$policy\"\n"                 \
	"		put=$policy\n"                                                                          \
	"	}\n"                                                                                     \
	"	in_root /bin/sh -c : || fail \"the base has no /bin/sh: packages and steps need "        \
	"it\"\n"                                                                                   \
	"}\n"                                                                                      \
	"leave() {\n"                                                                              \
	"	umount -lR \"$root/dev\"; umount -l \"$root/proc\"\n"                                    \
	"	[ -L \"$resolv\" ] || umount -l \"$resolv\"\n"                                           \
	"	[ -z \"$made\" ] || rm -f \"$made\"\n"                                                   \
	"	[ -z \"$put\" ] || rm -f \"$put\"\n"                                                     \
	"}\n"                                                                                      \
	"in_root() {\n"                                                                            \
	"	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"                \
	" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy=\"$http_proxy\"}" \
	" ${https_proxy:+https_proxy=\"$https_proxy\"} chroot \"$root\" \"$@\" 3>&-\n"             \
	"}\n"

#define INSTALL                                                                             \
	"install_packages() {\n"                                                            \
	"	in_root /bin/sh -c 'command -v apt-get' >/dev/null || fail \"packages: the base " \
	"has no apt-get; take a base of Debian or leave packages out\"\n"                   \
	"	in_root apt-get -qq update\n"                                                     \
	"	in_root apt-get indextargets | grep -q . || fail \"packages: the base has no "    \
	"sources of packages in /etc/apt that can be reached\"\n"                           \
	"	in_root apt-get -qq --yes --no-install-recommends $options install $packages\n"   \
	"	in_root apt-get clean\n"                                                          \
	"	in_root /bin/sh -c 'rm -rf /var/lib/apt/lists/*'\n"                               \
	"}\n"

/* Licences stay: whoever hands an image on has to hand them on too. */
#define TRIM                                                              \
	"if [ \"$trim\" = yes ]; then\n"                                  \
	"	for path in doc man info locale lintian; do\n"                  \
	"		options=\"$options "                                           \
	"-oDpkg::Options::=--path-exclude=/usr/share/$path/*\"\n"         \
	"	done\n"                                                         \
	"	options=\"$options "                                            \
	"-oDpkg::Options::=--path-include=/usr/share/doc/*/copyright\"\n" \
	"fi\n"

static const char script[] =
	"set -euf\n"
	"tree=$1 work=$2 trim=$3 packages=$4 perl=$5 files=$6 options= made= put=\n"
	"shift 6\n"
	"root=$work/bundle/rootfs\n"
	"exec 3>&1 >&2\n"
	"fail() { echo \"E: $*\"; exit 1; }\n" ENTER INSTALL TRIM "if [ -d \"$tree\" ]; then\n"
	"	umoci unpack --image \"$tree:image\" \"$work/bundle\" || fail 'umoci "
	"cannot unpack "
	"the base'\n"
	"else\n"
	"	mkdir \"$work/bundle\"\n"
	"	unsquashfs -quiet -no-progress -excludes -dest \"$root\" \"$tree\" 'dev/*' "
	"|| fail "
	"'cannot unpack "
	"the base'\n"
	"fi\n"
	"[ ! -L \"$root\" ] && [ -d \"$root\" ] || fail 'the base has no root'\n"
	"grown=$(($# - 3 * files))\n"
	"[ -z \"$packages\" ] && [ $grown = 0 ] || enter\n"
	"[ -z \"$packages\" ] || install_packages\n"
	"while [ $files -gt 0 ]; do\n"
	"	perl -e \"$perl\" \"$root\" \"$1\" \"$2\" \"$3\"\n"
	"	shift 3; files=$((files - 1))\n"
	"done\n"
	"for step; do\n"
	"	in_root /bin/sh -euc \"$step\" || fail \"a step failed: $step\"\n"
	"done\n"
	"[ -z \"$packages\" ] && [ $grown = 0 ] || leave\n"
	"tar -C \"$root\" --sort=name --numeric-owner --format=pax"
	" --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"
	" --xattrs --xattrs-include=security.capability -cf - . >&3\n";

void grow_begin(struct args *args, const char *tree, const char *work, bool trim,
		char *const *packages, unsigned nfiles)
{
	args_add(args, "sh");
	args_add(args, "-c");
	args_add(args, "%s", script);
	args_add(args, "grow");
	args_add(args, "%s", tree);
	args_add(args, "%s", work);
	args_add(args, "%s", trim ? "yes" : "no");
	args_add(args, "%s", packages[0] ? packages[0] : "");
	for (unsigned i = 1; packages[0] && packages[i]; i++)
		args_extend(args, " %s", packages[i]);
	args_add(args, "%s", PUT);
	args_add(args, "%u", nfiles);
}

void grow_file(struct args *args, const char *from, const char *to, unsigned mode)
{
	args_add(args, "%s", from);
	args_add(args, "%s", to);
	args_add(args, "%o", mode);
}
