/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_CREDENTIAL_H
#define WISP_CHANNEL_CREDENTIAL_H

/*
 * MUNGE without waiting: its library asks a local daemon and blocks, for ever where that hangs, so
 * a thread does it, and so many threads at most. Where Wisp was built without MUNGE, and where its
 * daemon does not answer, jobs fail and say so.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct credential_job;
struct credentials;
struct error;

#define CREDENTIAL_JOBS 32u	 /* at once; those that nobody waits for any more count */
#define CREDENTIAL_PAYLOAD 1024u /* bytes, at most */
#define CREDENTIAL_TEXT 4096u	 /* with the NUL */

/* Wisp was built with MUNGE. */
bool credentials_known(void);

/* socket: MUNGE's, NULL for the usual one. The caller owns *ret. Returns 0 or -errno. */
int credentials_create(const char *socket, struct credentials **ret, struct error *err);
/* Jobs may still run. Accepts NULL. */
void credentials_destroy(struct credentials *c);

/* A credential of the payload that only uid can decode. -EBUSY: too many jobs, or another -errno.
 */
int credential_encode(struct credentials *c, const void *payload, size_t n, uid_t uid,
		      struct credential_job **ret, struct error *err);
int credential_decode(struct credentials *c, const char *text, struct credential_job **ret,
		      struct error *err);

struct credential {
	char text[CREDENTIAL_TEXT];	     /* what was encoded */
	uint8_t payload[CREDENTIAL_PAYLOAD]; /* what was decoded */
	size_t n;
	uid_t uid; /* whose it is */
};

/* Readable when the job is done; the job's. */
int credential_fd(const struct credential_job *job);
/* 0 and *ret (the job's), -EAGAIN, or -errno with the reason: -EACCES is a credential that is none.
 */
int credential_result(struct credential_job *job, const struct credential **ret, struct error *err);
/* Nobody waits for it. Sets the pointer to NULL; accepts a pointer to NULL. */
void credential_drop(struct credential_job **job);

#endif
