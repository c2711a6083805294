/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials of MUNGE, each made or read by a thread of its own. */

#include "channel/credential.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#ifdef WISP_MUNGE
#include <munge.h>
#endif

#include "lib/cleanup.h"
#include "lib/error.h"

struct credentials {
	atomic_uint holders; /* the owner and the jobs */
	char *socket;
};

struct credential_job {
	atomic_uint holders; /* who waits and the thread */
	struct credentials *from;
	bool encodes;
	uid_t restricted;
	struct credential c;
	int fd, code;
	struct error reason;
};

int credentials_create(const char *socket, struct credentials **ret, struct error *err)
{
	struct credentials *c = calloc(1, sizeof(*c));

	if (c && socket)
		c->socket = strdup(socket);
	if (!c || (socket && !c->socket)) {
		free(c);
		return error_set(err, -ENOMEM, "out of memory");
	}
	c->holders = 1;
	*ret = c;
	return 0;
}

void credentials_destroy(struct credentials *c)
{
	if (!c || atomic_fetch_sub(&c->holders, 1) > 1)
		return;
	free(c->socket);
	free(c);
}

static void job_put(struct credential_job *job)
{
	if (atomic_fetch_sub(&job->holders, 1) > 1)
		return;
	credentials_destroy(job->from);
	OPENSSL_cleanse(&job->c, sizeof(job->c));
	close(job->fd);
	free(job);
}

bool credentials_known(void)
{
#ifdef WISP_MUNGE
	return true;
#else
	return false;
#endif
}

#ifdef WISP_MUNGE
static int explain(struct credential_job *job, munge_err_t rc)
{
	if (rc == EMUNGE_SUCCESS)
		return 0;
	if (rc == EMUNGE_SOCKET)
		return error_set(&job->reason, -ENOTCONN,
				 "MUNGE: its daemon does not answer here; start munged, or use a "
				 "key of the cluster");
	return error_set(&job->reason, -EACCES, "MUNGE: %s", munge_strerror(rc));
}

static int encode(struct credential_job *job, munge_ctx_t ctx)
{
	char *text = NULL;
	munge_err_t rc = munge_ctx_set(ctx, MUNGE_OPT_UID_RESTRICTION, job->restricted);

	if (rc == EMUNGE_SUCCESS)
		rc = munge_encode(&text, ctx, job->c.payload, (int)job->c.n);
	if (rc == EMUNGE_SUCCESS && strlen(text) >= CREDENTIAL_TEXT)
		rc = EMUNGE_OVERFLOW;
	if (rc == EMUNGE_SUCCESS)
		strcpy(job->c.text, text);
	free(text);
	return explain(job, rc);
}

/* A replayed or late credential is decoded as well, and refused. */
static int decode(struct credential_job *job, munge_ctx_t ctx)
{
	void *payload = NULL;
	int n = 0;
	gid_t gid;
	munge_err_t rc = munge_decode(job->c.text, ctx, &payload, &n, &job->c.uid, &gid);

	if (rc == EMUNGE_SUCCESS && (n < 0 || (size_t)n > CREDENTIAL_PAYLOAD))
		rc = EMUNGE_OVERFLOW;
	if (rc == EMUNGE_SUCCESS) {
		memcpy(job->c.payload, payload, (size_t)n);
		job->c.n = (size_t)n;
	}
	if (payload && n > 0)
		OPENSSL_cleanse(payload, (size_t)n);
	free(payload);
	return explain(job, rc);
}

static int run(struct credential_job *job)
{
	munge_ctx_t ctx = munge_ctx_create();
	int rc;

	if (!ctx)
		return error_set(&job->reason, -ENOMEM, "out of memory");
	if (job->from->socket &&
	    munge_ctx_set(ctx, MUNGE_OPT_SOCKET, job->from->socket) != EMUNGE_SUCCESS)
		rc = error_set(&job->reason, -EINVAL, "MUNGE: %s", munge_ctx_strerror(ctx));
	else
		rc = job->encodes ? encode(job, ctx) : decode(job, ctx);
	munge_ctx_destroy(ctx);
	return rc;
}
#else
static int run(struct credential_job *job)
{
	return error_set(&job->reason, -ENOTSUP,
			 "this Wisp was built without MUNGE: use a key of the cluster");
}
#endif

static void *job_main(void *arg)
{
	struct credential_job *job = arg;
	uint64_t one = 1;

	job->code = run(job);
	/* The counter is 0: this cannot fail. */
	if (write(job->fd, &one, sizeof(one)) < 0)
		abort();
	job_put(job);
	return NULL;
}

static int start_thread(struct credential_job *job, struct error *err)
{
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	job->holders = 2;
	rc = pthread_create(&thread, &attr, job_main, job);
	pthread_attr_destroy(&attr);
	if (!rc)
		return 0;
	job->holders = 1;
	return error_set(err, -EBUSY, "no thread for MUNGE: %s", strerror(rc));
}

/* Becomes the job's, also when it fails. */
static int start(struct credentials *c, struct credential_job *job, struct credential_job **ret,
		 struct error *err)
{
	int rc = 0;

	if (!job)
		return error_set(err, -ENOMEM, "out of memory");
	job->holders = 1;
	job->from = c;
	job->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (atomic_fetch_add(&c->holders, 1) > CREDENTIAL_JOBS)
		rc = error_set(err, -EBUSY, "MUNGE: too many wait for its daemon");
	else if (job->fd < 0)
		rc = error_errno(err, -errno, "cannot wait for MUNGE");
	if (rc == 0)
		rc = start_thread(job, err);
	if (rc == 0)
		*ret = job;
	else
		job_put(job);
	return rc;
}

int credential_encode(struct credentials *c, const void *payload, size_t n, uid_t uid,
		      struct credential_job **ret, struct error *err)
{
	struct credential_job *job = calloc(1, sizeof(*job));

	if (n > CREDENTIAL_PAYLOAD) {
		free(job);
		return error_set(err, -EINVAL, "a credential of %zu bytes", n);
	}
	if (job) {
		job->encodes = true;
		job->restricted = uid;
		memcpy(job->c.payload, payload, n);
		job->c.n = n;
	}
	return start(c, job, ret, err);
}

int credential_decode(struct credentials *c, const char *text, struct credential_job **ret,
		      struct error *err)
{
	struct credential_job *job = calloc(1, sizeof(*job));

	if (strlen(text) >= CREDENTIAL_TEXT) {
		free(job);
		return error_set(err, -EACCES, "a credential of %zu characters", strlen(text));
	}
	if (job)
		strcpy(job->c.text, text);
	return start(c, job, ret, err);
}

int credential_fd(const struct credential_job *job)
{
	return job->fd;
}

int credential_result(struct credential_job *job, const struct credential **ret, struct error *err)
{
	uint64_t count;

	if (read(job->fd, &count, sizeof(count)) != sizeof(count))
		return -EAGAIN;
	if (job->code < 0)
		return error_set(err, job->code, "%s", job->reason.text);
	*ret = &job->c;
	return 0;
}

void credential_drop(struct credential_job **job)
{
	if (*job)
		job_put(take_ptr(*job));
}
