/* SPDX-License-Identifier: Apache-2.0 */
/* Signs images, and says who signed one: manifest.sig, over the bytes of manifest.json. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "env/signature.h"
#include "image/image.h"
#include "image/manifest.h"
#include "image/store.h"
#include "lib/cleanup.h"
#include "lib/error.h"
#include "lib/io.h"

#define PROOF_MAX (8u << 20) /* bytes of a manifest: half a message */
#define FORMAT "wisp-signature 1\nkey: %s\nsignature: %s\n"

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* A file of the image: its length, or -errno. */
static ssize_t read_part(const struct image *image, const char *name, size_t max, char **ret,
			 struct error *err)
{
	CLEANUP_FREE char *path = io_format("%s/%s", image->folder, name);

	return path ? io_read_file(path, max, ret, err) : no_memory(err);
}

static int write_signature(const struct image *image, EVP_PKEY *pkey, struct error *err)
{
	CLEANUP_FREE char *manifest = NULL, *text = NULL;
	CLEANUP_FREE char *path = io_format("%s/manifest.sig", image->folder);
	char key[SIGNATURE_KEY_TEXT], signature[SIGNATURE_TEXT];
	ssize_t n = read_part(image, "manifest.json", MANIFEST_MAX, &manifest, err);
	int rc = n < 0 ? (int)n : signature_key(pkey, key, err);

	if (rc == 0)
		rc = signature_make(pkey, manifest, (size_t)n, signature, err);
	if (rc < 0)
		return rc;
	text = io_format(FORMAT, key, signature);
	return path && text ? io_write_file(path, text, strlen(text), err) : no_memory(err);
}

int image_sign(const char *reference, const char *key_file, struct error *err)
{
	EVP_PKEY *key = NULL;
	struct image image;
	int rc = signature_load_key(key_file, &key, err);

	if (rc == 0)
		rc = image_open(reference, &image, err);
	if (rc == 0) {
		rc = image_verify(&image, err);
		if (rc == 0)
			rc = write_signature(&image, key, err);
		image_close(&image);
	}
	EVP_PKEY_free(key);
	return rc;
}

/* One signature has one text. */
static bool parse(const char *text, size_t n, struct signature *ret)
{
	char key[SIGNATURE_KEY_TEXT], signature[SIGNATURE_TEXT];
	CLEANUP_FREE char *again = NULL, *copy = strndup(text, n);

	if (copy && sscanf(copy, "wisp-signature 1 key: %44s signature: %88s", key, signature) == 2)
		again = io_format(FORMAT, key, signature);
	return again && strlen(again) == n && !memcmp(again, text, n) &&
	       signature_parse(key, signature, ret);
}

static int read_signature(const struct image *image, struct signature *ret, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t n = read_part(image, "manifest.sig", SIGNATURE_MAX, &text, err);

	if (n == -ENOENT)
		return error_set(err, -ENODATA,
				 "image %s is not signed (wisp image sign %s --key FILE)",
				 image->name, image->name);
	if (n < 0)
		return (int)n;
	if (!parse(text, (size_t)n, ret))
		return error_set(err, -EBADMSG, "image %s: %s/manifest.sig is no signature",
				 image->name, image->folder);
	return 0;
}

int image_proof(const struct image *image, json_t **ret, struct error *err)
{
	CLEANUP_FREE char *manifest = NULL, *signature = NULL;
	ssize_t n = read_part(image, "manifest.sig", SIGNATURE_MAX, &signature, err);

	*ret = NULL;
	if (n == -ENOENT)
		return 0;
	if (n >= 0)
		n = read_part(image, "manifest.json", PROOF_MAX, &manifest, err);
	if (n < 0)
		return (int)n;
	*ret = json_pack("{s:s%, s:s}", "manifest", manifest, (size_t)n, "signature", signature);
	return *ret ? 0
		    : error_set(err, -EBADMSG, "image %s: its manifest is not UTF-8 text",
				image->name);
}

static int read_proof(const json_t *proof, const char *digest, json_t **ret, struct error *err)
{
	const json_t *manifest = json_object_get(proof, "manifest");
	char own[DIGEST_TEXT];
	json_t *json = json_loadb(json_string_value(manifest), json_string_length(manifest),
				  JSON_REJECT_DUPLICATES, NULL);
	int rc = json_is_object(json) ? image_digest(json, own, err)
				      : error_set(err, -EBADMSG, "its manifest is none");

	if (rc == 0 && strcmp(own, digest))
		rc = error_set(err, -EBADMSG, "its signature is of the image sha256:%s", own);
	if (rc < 0)
		json_decref(json);
	else
		*ret = json;
	return rc;
}

/* Nothing is read of what nobody who is trusted has signed. */
int image_check_proof(const json_t *proof, const char *name, const char *digest, const char *keys,
		      json_t **ret, struct error *err)
{
	const json_t *manifest = json_object_get(proof, "manifest");
	const json_t *text = json_object_get(proof, "signature");
	CLEANUP_FREE char *where = io_format("image %s", name);
	struct signature signature;
	int rc;

	if (!where)
		return no_memory(err);
	if (!proof)
		return error_set(err, -ENODATA, "%s is not signed", where);
	if (!json_is_string(manifest) || !json_is_string(text) ||
	    json_string_length(text) > SIGNATURE_MAX ||
	    !parse(json_string_value(text), json_string_length(text), &signature))
		return error_set(err, -EBADMSG, "%s: what shall prove its signature is no proof",
				 where);
	if (!signature_is_good(&signature, json_string_value(manifest),
			       json_string_length(manifest)))
		return error_set(err, -EACCES, "%s: its signature does not belong to it", where);
	rc = signature_is_trusted(&signature, keys, where, NULL, err);
	if (rc < 0)
		return rc;
	rc = read_proof(proof, digest, ret, err);
	return rc < 0 ? error_prefix(err, rc, "%s", where) : 0;
}

bool image_signature_holds(const char *text, size_t n, const void *manifest, size_t size)
{
	struct signature signature;

	return n <= SIGNATURE_MAX && parse(text, n, &signature) &&
	       signature_is_good(&signature, manifest, size);
}

int image_check_signature(const struct image *image, const char *keys, char **ret_who,
			  struct error *err)
{
	CLEANUP_FREE char *manifest = NULL, *where = io_format("image %s", image->name);
	struct signature signature;
	json_t *json;
	bool same;
	int rc = where ? read_signature(image, &signature, err) : no_memory(err);
	ssize_t n;

	if (rc < 0)
		return rc;
	n = read_part(image, "manifest.json", MANIFEST_MAX, &manifest, err);
	if (n < 0)
		return (int)n;
	/* What was opened is what is signed, also when the file was replaced since. */
	json = json_loadb(manifest, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	same = json && json_equal(json, image->manifest);
	json_decref(json);
	if (!same || !signature_is_good(&signature, manifest, (size_t)n))
		return error_set(
			err, -EACCES,
			"image %s: its signature does not belong to it: it was changed since",
			image->name);
	return signature_is_trusted(&signature, keys, where, ret_who, err);
}
