/* SPDX-License-Identifier: Apache-2.0 */
/* Which images may run under an administrator's rules. */

#include <errno.h>
#include <openssl/pem.h>

#include "env/result.h"
#include "image/image.h"
#include "image/test/fixture.h"

/* SHA-256 of "hello". */
#define HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define PART(name) "\"" name "\": {\"size\": 5, \"sha256\": \"" HELLO "\"}"
#define PARTS PART("vmlinux") ", " PART("vmlinuz") ", " PART("initrd") ", " PART("root.squashfs")
#define KERNEL "\"kernel\": \"linux-image-cloud-amd64\""

/* An image with an environment (the members of one). */
static void make_image(struct fixture *f, const char *folder, const char *name,
		       const char *environment)
{
	static const char *const parts[] = {"vmlinux", "vmlinuz", "initrd", "root.squashfs"};
	CLEANUP_FREE char *text = io_format("{\"format\": 1, \"name\": \"%s\", \"parts\": {" PARTS
					    "}, \"environment\": {%s}}",
					    name, environment);
	CLEANUP_FREE char *manifest = io_format("%s/%s/manifest.json", folder, name);

	write_text(f, manifest, text);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		CLEANUP_FREE char *part = io_format("%s/%s/%s", folder, name, parts[i]);

		write_text(f, part, "hello");
	}
}

/* A key pair, NAME.key and keys/NAME.pub; or of one that nobody trusts. */
static void make_key(struct fixture *f, const char *name, bool trusted)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	CLEANUP_FREE char *private = io_format("%s/%s.key", f->dir, name);
	CLEANUP_FREE char *public =
		io_format("%s/keys/%s.%s", f->dir, name, trusted ? "pub" : "no");
	CLEANUP_FREE char *keys = below(f, "keys");
	FILE *out;

	assert_int_equal(io_make_dirs(keys, 0755, &f->err), 0);
	out = fopen(private, "w");
	assert_int_equal(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(out);
	out = fopen(public, "w");
	assert_int_equal(PEM_write_PUBKEY(out, key), 1);
	fclose(out);
	EVP_PKEY_free(key);
}

static void sign(struct fixture *f, const char *name, const char *who)
{
	CLEANUP_FREE char *key = io_format("%s/%s.key", f->dir, who);

	assert_int_equal(image_sign(name, key, &f->err), 0);
}

/* What a user says of an image. */
struct said {
	json_t *image, *proof;
};

static struct said say(struct fixture *f, const char *name)
{
	struct said said = {0};
	char digest[DIGEST_TEXT];
	struct image image;

	assert_int_equal(image_open(name, &image, &f->err), 0);
	assert_int_equal(image_digest(image.manifest, digest, &f->err), 0);
	assert_int_equal(image_proof(&image, &said.proof, &f->err), 0);
	said.image = json_pack("{s:s, s:s}", "name", image.name, "digest", digest);
	image_close(&image);
	return said;
}

static void unsay(struct said *said)
{
	json_decref(said->image);
	json_decref(said->proof);
}

/* As by the daemon of a node with this policy: it has images of its own in f->dir/node. */
static int follows(struct fixture *f, const char *policy, const char *user, const struct said *said)
{
	CLEANUP_FREE char *keys = below(f, "keys"), *node = below(f, "node");
	json_t *facts = json_object();
	struct documents docs = {0};
	struct meet meet = {0};
	int r;

	documents_parse(&docs, user, strlen(user), "user.yaml", false);
	documents_parse(&docs, policy, strlen(policy), "site.yaml", true);
	assert_int_equal(docs.problems.n, 0);
	meet_documents(&docs, facts, NULL, &meet);
	assert_int_equal(meet.conflicts, 0);
	setenv("WISP_HOME", node, 1);
	f->err.text[0] = 0;
	r = image_follows(&meet, said->image, said->proof, keys, &f->err);
	setenv("WISP_HOME", f->dir, 1);
	meet_done(&meet);
	documents_done(&docs);
	json_decref(facts);
	return r;
}

static const char *digest_of(const struct said *said)
{
	return json_string_value(json_object_get(said->image, "digest"));
}

/* Without rules anything runs; with one nothing that only its user stands for. */
static void test_own(void **state)
{
	struct fixture *f = *state;
	struct said said, none = {0};
	json_t *wrong = json_pack("{s:s, s:s}", "name", "own", "digest", "12");

	make_image(f, "images", "own", "\"base\": \"debian:bookworm\", " KERNEL);
	said = say(f, "own");
	assert_null(said.proof);
	assert_int_equal(follows(f, "cpus: ..4\n", "cpus: 2\n", &said), 0);
	assert_int_equal(follows(f, "cpus: ..4\n", "cpus: 2\n", &none), 0);
	assert_int_equal(follows(f, "defaults: {base: debian:bookworm}\n", "cpus: 2\n", &said), 0);
	assert_int_equal(follows(f, "warn: yes\nbase: \"oci:*\"\n", "cpus: 2\n", &said), 0);
	assert_int_equal(follows(f, "match: {user: bob}\nbase: \"oci:*\"\n", "cpus: 2\n", &said),
			 0);
	assert_int_equal(follows(f, "rule: ours\nbase: debian:bookworm\n", "cpus: 2\n", &said),
			 -EACCES);
	assert_said(f, "rule ours of this site (site.yaml:2:7: base) does not let image own run: "
		       "image own "
		       "is not signed");
	assert_int_equal(follows(f, "packages: {forbid: [gcc]}\n", "cpus: 2\n", &said), -EACCES);
	assert_int_equal(follows(f, "base: debian:bookworm\n", "cpus: 2\n", &none), -EINVAL);
	assert_said(f, "\"image\" has to have");
	json_decref(said.image);
	said.image = wrong;
	assert_int_equal(follows(f, "cpus: ..4\n", "cpus: 2\n", &said), -EINVAL);
	unsay(&said);
}

/* A base that the rule has by its digest is itself; one that only fits its pattern is not. */
static void test_pinned(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *base = NULL, *more = NULL;
	struct said said, other;

	make_image(f, "images", "hpc-x", KERNEL);
	make_image(f, "images", "hpc-y", "\"base\": \"debian\"");
	said = say(f, "hpc-x");
	other = say(f, "hpc-y");
	base = io_format("base: image:hpc-x@sha256:%s\n", digest_of(&said));
	more = io_format("%spackages: [gcc]\n", base);
	assert_int_equal(follows(f, base, "cpus: 1\n", &said), 0);
	assert_int_equal(follows(f, base, "cpus: 1\n", &other), -EACCES);
	assert_int_equal(follows(f, base, more, &said), -EACCES);
	assert_int_equal(follows(f, base, "kernel: linux-image-amd64\n", &said), -EACCES);
	assert_int_equal(follows(f, "base: \"image:hpc-*\"\n", base, &said), -EACCES);
	unsay(&said);
	unsay(&other);
}

/* What root keeps at the node is believed. */
static void test_site(void **state)
{
	struct fixture *f = *state;
	struct said said, fake;

	make_image(f, "node/images", "hpc", "\"base\": \"debian:bookworm\", " KERNEL);
	make_image(f, "images", "hpc", "\"base\": \"debian:bookworm\", " KERNEL);
	said = say(f, "hpc");
	assert_int_equal(follows(f, "base: \"image:hpc\"\n", "cpus: 1\n", &said), 0);
	assert_int_equal(follows(f, "base: debian:bookworm\n", "cpus: 1\n", &said), 0);
	assert_int_equal(follows(f, "base: debian\n", "cpus: 1\n", &said), 0);
	assert_int_equal(follows(f, "base: debian:trixie\n", "cpus: 1\n", &said), -EACCES);
	assert_said(f, "it was not built with the base of this environment, debian:trixie");
	assert_int_equal(follows(f, "base: \"image:other\"\n", "cpus: 1\n", &said), -EACCES);
	assert_int_equal(follows(f, "packages: {require: [gcc]}\n", "cpus: 1\n", &said), -EACCES);
	assert_said(f, "the packages of this environment");
	make_image(f, "images", "hpc", "\"base\": \"debian:bookworm\", \"x\": 1, " KERNEL);
	fake = say(f, "hpc");
	assert_int_equal(follows(f, "base: \"image:hpc\"\n", "cpus: 1\n", &fake), -EACCES);
	unsay(&said);
	unsay(&fake);
}

/* Upon a base that a rule asks for, signed. */
static void test_signed(void **state)
{
	struct fixture *f = *state;
	static const char user[] = "packages: [gcc]\n";
	struct said said, eve, other;

	make_key(f, "ann", true);
	make_key(f, "eve", false);
	make_image(f, "images", "a",
		   "\"base\": \"image:hpc@sha256:" HELLO "\", \"packages\": [\"gcc\"], " KERNEL);
	make_image(f, "images", "b", "\"base\": \"debian:bookworm\"");
	sign(f, "b", "ann");
	other = say(f, "b");
	sign(f, "a", "eve");
	eve = say(f, "a");
	sign(f, "a", "ann");
	said = say(f, "a");
	assert_int_equal(follows(f, "base: \"image:hpc\"\n", user, &said), 0);
	assert_int_equal(follows(f, "base: \"image:hpc@sha256:" HELLO "\"\n", user, &said), 0);
	assert_int_equal(follows(f, "base: \"image:@sha256:" HELLO "\"\n", user, &said), 0);
	assert_int_equal(follows(f, "base: \"image:hp\"\n", user, &said), -EACCES);
	assert_int_equal(follows(f, "base: \"image:hpc\"\n", user, &eve), -EACCES);
	assert_said(f, "signed by a key that is not in");
	assert_int_equal(follows(f, "base: \"image:hpc\"\n", user, &other), -EACCES);
	assert_int_equal(follows(f, "signed: yes\n", user, &said), 0);
	assert_int_equal(follows(f, "signed: yes\n", user, &eve), -EACCES);
	assert_said(f, "the environment says signed: yes: image a is signed by a key");
	/* It is of another image: of what it proves nothing here. */
	json_decref(eve.proof);
	eve.proof = json_incref(other.proof);
	assert_int_equal(follows(f, "base: \"image:hpc\"\n", user, &eve), -EACCES);
	assert_said(f, "its signature is of the image sha256:");
	/* The image itself, under the name that it was signed with. */
	assert_int_equal(follows(f, "base: \"image:b\"\n", "cpus: 1\n", &other), 0);
	assert_int_equal(follows(f, "base: \"image:b\"\n", user, &other), -EACCES);
	assert_int_equal(follows(f, "base: \"image:c\"\n", "cpus: 1\n", &other), -EACCES);
	unsay(&said);
	unsay(&eve);
	unsay(&other);
}

/* Any byte of a proof that is another makes it none; what is no text is refused. */
static void test_hostile(void **state)
{
	struct fixture *f = *state;
	static const char *const members[] = {"manifest", "signature"};
	static const char *const none[] = {"null",
					   "[]",
					   "{}",
					   "3",
					   "{\"manifest\": 1, \"signature\": 2}",
					   "{\"manifest\": \"{}\", \"signature\": \"\"}"};
	CLEANUP_FREE char *keys = below(f, "keys");
	json_t *manifest = NULL;
	struct said said;

	make_key(f, "ann", true);
	make_image(f, "images", "a", KERNEL);
	sign(f, "a", "ann");
	said = say(f, "a");
	for (size_t m = 0; m < 2; m++) {
		const char *text = json_string_value(json_object_get(said.proof, members[m]));

		for (size_t i = 0; i < strlen(text); i++) {
			json_t *copy = json_copy(said.proof);
			CLEANUP_FREE char *other = strdup(text);

			other[i] = (char)(other[i] == 'x' ? 'y' : 'x');
			json_object_set_new(copy, members[m], json_string(other));
			assert_true(image_check_proof(copy, "a", digest_of(&said), keys, &manifest,
						      &f->err) < 0);
			json_decref(copy);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		json_t *proof = json_loads(none[i], JSON_DECODE_ANY, NULL);

		assert_int_equal(
			image_check_proof(proof, "a", digest_of(&said), keys, &manifest, &f->err),
			-EBADMSG);
		json_decref(proof);
	}
	assert_int_equal(image_check_proof(NULL, "a", digest_of(&said), keys, &manifest, &f->err),
			 -ENODATA);
	assert_int_equal(
		image_check_proof(said.proof, "a", digest_of(&said), keys, &manifest, &f->err), 0);
	json_decref(manifest);
	unsay(&said);
}

static void check_as_it_is(const char *user, const char *wanted)
{
	json_t *facts = json_object();
	struct documents docs = {0};
	struct meet meet = {0};
	char *got = NULL;

	documents_parse(&docs, user, strlen(user), "user.yaml", false);
	meet_documents(&docs, facts, NULL, &meet);
	assert_int_equal(image_as_it_is(&meet, &got, NULL), 0);
	assert_true(wanted ? got && !strcmp(got, wanted) : !got);
	free(got);
	meet_done(&meet);
	documents_done(&docs);
	json_decref(facts);
}

static void test_as_it_is(void **state)
{
	check_as_it_is("base: image:x\n", "x");
	check_as_it_is("base: image:x\ncpus: 2\ncmdline: [quiet]\n", "x");
	check_as_it_is("base: image:x@sha256:" HELLO "\n", "x@sha256:" HELLO);
	check_as_it_is("base: image:x\npackages: {forbid: [gcc]}\n", "x");
	check_as_it_is("base: image:x\npackages: [gcc]\n", NULL);
	check_as_it_is("base: image:x\nmodules: [ext4]\n", NULL);
	check_as_it_is("base: image:x\nfiles: {/a: {from: b}}\n", NULL);
	check_as_it_is("base: image:x\nsteps: [\"true\"]\n", NULL);
	check_as_it_is("base: image:x\nkernel: linux-image-amd64\n", NULL);
	check_as_it_is("base: image:x\ncompression: xz\n", NULL);
	check_as_it_is("base: debian\n", NULL);
	check_as_it_is("cpus: 1\n", NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_own),	   WITH_FOLDER(test_pinned),
		WITH_FOLDER(test_site),	   WITH_FOLDER(test_signed),
		WITH_FOLDER(test_hostile), cmocka_unit_test(test_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
