/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_IMAGE_KERNEL_H
#define WISP_IMAGE_KERNEL_H

/*
 * Kernels from Debian packages, unpacked into the cache (CACHE/kernel/PACKAGE_VERSION); nothing
 * is installed. A kernel that is in the cache is had without a network.
 */

struct error;

#define KERNEL_DEFAULT "linux-image-cloud-amd64"

/* All strings are the structure's; free them with kernel_done(). */
struct kernel {
	char *package; /* the package with the files: linux-image-6.1.0-1-cloud-amd64 */
	char *version; /* of the package */
	char *release; /* as uname -r says it */
	char *vmlinuz; /* the bzImage */
	char *vmlinux; /* the uncompressed ELF kernel */
	char *modules; /* folder lib/modules/RELEASE */
	char *note;    /* NULL or one line for the user: why it is not the newest one */
};

/*
 * Gets the kernel of a package (or the one a meta-package depends on): from the cache, else by
 * `apt-get download`. Only its first call for a version takes seconds. 0 or -errno. Any thread, any
 * number of processes at once.
 */
int kernel_get(const char *package, struct kernel *ret, struct error *err);
void kernel_done(struct kernel *kernel);

#endif
