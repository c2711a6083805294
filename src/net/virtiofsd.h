/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NET_VIRTIOFSD_H
#define WISP_NET_VIRTIOFSD_H

/*
 * virtiofsd: the program that serves a folder of the host to one guest by vhost-user. Both the C
 * program of QEMU 7 and its successor in Rust. Any thread.
 */

#include <stdbool.h>
#include <sys/types.h>

struct args;
struct error;

struct virtiofsd {
	const char *program; /* virtiofsd_find() */
	const char *preload; /* a library for it, or NULL */
	const char *source;  /* the folder */
	bool read_only;	     /* for the guest, by the kernel */
	bool cached;	     /* the guest need not ask whether files have changed */
};

/* The program, a new string; -ENOENT names the package. */
int virtiofsd_find(char **ret, struct error *err);

/* Its command line, with a listening socket at descriptor 3. */
void virtiofsd_args(const struct virtiofsd *fs, struct args *ret);

/*
 * Starts it. *pid is the caller's to wait for, *connected the other end of its only connection,
 * which the caller owns. It ends when that is closed.
 */
int virtiofsd_start(const struct virtiofsd *fs, pid_t *pid, int *connected, struct error *err);

#endif
