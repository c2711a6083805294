/* SPDX-License-Identifier: Apache-2.0 */
/* Signs and checks waivers. */

#include "env/waiver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "env/signature.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define MAX_WAIVER 16384
#define TIME_FORMAT "%Y-%m-%dT%H:%M:%SZ"

void waiver_done(struct waiver *w)
{
	free(w->rule);
	free(w->user);
	free(w->project);
	free(w->application);
	free(w->because);
	*w = (struct waiver){0};
}

int waiver_time(const char *text, int64_t *ret, struct error *err)
{
	struct tm tm = {0};
	const char *end = strptime(text, TIME_FORMAT, &tm);
	int64_t time;
	int day;

	if (!end || *end) {
		tm = (struct tm){0};
		end = strptime(text, "%Y-%m-%d", &tm);
	}
	day = tm.tm_mday;
	time = timegm(&tm);
	/* What there is not, as the 30th of February, would be another day. */
	if (!end || *end || tm.tm_mday != day)
		return error_set(err, -EINVAL,
				 "\"%s\" is not a time like 2027-01-31T12:00:00Z or 2027-01-31",
				 text);
	*ret = time;
	return 0;
}

/* -------- signing -------- */

static bool is_line(const char *text)
{
	return text && *text && !strpbrk(text, "\r\n");
}

static char *waiver_body(const struct waiver *w, const char *key)
{
	struct args body = {0};
	time_t until = (time_t)w->until;
	char time[32], *text;
	struct tm tm;

	strftime(time, sizeof(time), TIME_FORMAT, gmtime_r(&until, &tm));
	args_add(&body, "wisp-waiver 1\nrule: %s\nuser: %s\n", w->rule, w->user);
	if (w->project)
		args_extend(&body, "project: %s\n", w->project);
	if (w->application)
		args_extend(&body, "application: %s\n", w->application);
	args_extend(&body, "until: %s\nbecause: %s\nkey: %s\n", time, w->because, key);
	text = body.failed ? NULL : take_ptr(body.v[0]);
	args_done(&body);
	return text;
}

static int sign(const struct waiver *w, EVP_PKEY *pkey, char **ret, struct error *err)
{
	char key[SIGNATURE_KEY_TEXT], text[SIGNATURE_TEXT];
	CLEANUP_FREE char *body = NULL;
	int r = signature_key(pkey, key, err);

	if (r)
		return r;
	body = waiver_body(w, key);
	if (!body)
		return error_set(err, -ENOMEM, "out of memory");
	r = signature_make(pkey, body, strlen(body), text, err);
	if (r)
		return r;
	*ret = io_format("%ssignature: %s\n", body, text);
	return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int waiver_sign(const struct waiver *w, const char *key_file, char **ret, struct error *err)
{
	EVP_PKEY *key;
	int r;

	if (!is_line(w->rule) || !is_line(w->user) || !is_line(w->because) ||
	    (w->project && !is_line(w->project)) || (w->application && !is_line(w->application)))
		return error_set(err, -EINVAL,
				 "rule, user, project, application and because are one "
				 "line each, and not empty");
	r = signature_load_key(key_file, &key, err);
	if (r)
		return r;
	r = sign(w, key, ret, err);
	EVP_PKEY_free(key);
	return r;
}

/* -------- checking -------- */

/* Takes "NAME: value\n" off the text: a new string, or NULL when it does not begin so. */
static char *take_line(const char **text, const char *name)
{
	size_t n = strlen(name), length = strcspn(*text, "\n");
	char *value;

	if (strncmp(*text, name, n) || strncmp(*text + n, ": ", 2) || !(*text)[length] ||
	    length == n + 2)
		return NULL;
	value = strndup(*text + n + 2, length - n - 2);
	*text += length + 1;
	return value;
}

/* What is read of a waiver before it is known to be good. */
struct parsed {
	struct waiver waiver;
	struct signature signature;
	size_t signed_size;
};

static int parse(const char *text, const char *where, struct parsed *ret, struct error *err)
{
	CLEANUP_FREE char *until = NULL, *key = NULL, *signature = NULL;
	struct waiver *w = &ret->waiver;
	const char *p = text;

	if (strncmp(p, "wisp-waiver 1\n", 14))
		return error_set(err, -EINVAL, "%s is no waiver of version 1", where);
	p += 14;
	w->rule = take_line(&p, "rule");
	w->user = take_line(&p, "user");
	w->project = take_line(&p, "project");
	w->application = take_line(&p, "application");
	until = take_line(&p, "until");
	w->because = take_line(&p, "because");
	key = take_line(&p, "key");
	ret->signed_size = (size_t)(p - text);
	signature = take_line(&p, "signature");
	if (!w->rule || !w->user || !until || !w->because || !key || !signature || *p)
		return error_set(
			err, -EINVAL,
			"%s: a waiver has the lines rule, user, until, because, key, signature",
			where);
	if (!signature_parse(key, signature, &ret->signature))
		return error_set(err, -EINVAL, "%s: key or signature is not one of Ed25519", where);
	if (waiver_time(until, &w->until, err))
		return error_prefix(err, -EINVAL, "%s: until", where);
	return 0;
}

/* Of a fact that the waiver names. */
static int check_fact(const json_t *facts, const char *name, const char *wanted, const char *where,
		      struct error *err)
{
	if (!wanted || texts_contain(json_object_get(facts, name), wanted))
		return 0;
	return error_set(err, -EACCES, "%s is for %s %s", where, name, wanted);
}

static int check(const struct parsed *p, const char *text, const char *where, const char *keys,
		 const json_t *facts, int64_t now, struct error *err)
{
	const struct waiver *w = &p->waiver;
	int r;

	if (!signature_is_good(&p->signature, text, p->signed_size))
		return error_set(err, -EACCES, "%s: its signature does not belong to it", where);
	r = signature_is_trusted(&p->signature, keys, where, NULL, err);
	if (!r)
		r = check_fact(facts, "user", w->user, where, err);
	if (!r)
		r = check_fact(facts, "project", w->project, where, err);
	if (!r)
		r = check_fact(facts, "application", w->application, where, err);
	if (!r && now >= w->until)
		r = error_set(err, -EACCES, "%s has ended", where);
	return r;
}

int waiver_check(const char *text, const char *where, const char *keys, const json_t *facts,
		 int64_t now, struct waiver *ret, struct error *err)
{
	struct parsed parsed = {0};
	int r = parse(text, where, &parsed, err);

	if (!r)
		r = check(&parsed, text, where, keys, facts, now, err);
	if (r)
		waiver_done(&parsed.waiver);
	else
		*ret = parsed.waiver;
	return r;
}

int waiver_load(const char *path, const char *keys, const json_t *facts, int64_t now,
		struct waiver *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t size = io_read_file(path, MAX_WAIVER, &text, err);

	if (size < 0)
		return (int)size;
	if (strlen(text) != (size_t)size)
		return error_set(err, -EINVAL, "%s is no waiver: it has a NUL byte", path);
	return waiver_check(text, path, keys, facts, now, ret, err);
}
