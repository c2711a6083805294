/* SPDX-License-Identifier: Apache-2.0 */
/* Where images are found, by name and digest, and which are not used. */

#include <sys/stat.h>
#include <time.h>
#include <utime.h>

#include "image/image.h"
#include "image/store.h"
#include "image/test/fixture.h"

/* SHA-256 of "hello". */
#define HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define PART(name) "\"" name "\": {\"size\": 5, \"sha256\": \"" HELLO "\"}"
#define PARTS PART("vmlinux") ", " PART("vmlinuz") ", " PART("initrd") ", " PART("root.squashfs")

/* An image in a folder below the fixture's; key makes another digest. */
static void make_image(struct fixture *f, const char *folder, const char *key)
{
	static const char *const parts[] = {"vmlinux", "vmlinuz", "initrd", "root.squashfs"};
	CLEANUP_FREE char *text =
		io_format("{\"format\": 1, \"key\": \"%s\", \"parts\": {" PARTS "}}", key);
	CLEANUP_FREE char *manifest = io_format("%s/manifest.json", folder);

	write_text(f, manifest, text);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		CLEANUP_FREE char *part = io_format("%s/%s", folder, parts[i]);

		write_text(f, part, "hello");
	}
}

static void digest_of(struct fixture *f, const char *reference, char ret[DIGEST_TEXT])
{
	struct image image;

	assert_int_equal(image_open(reference, &image, &f->err), 0);
	assert_int_equal(image_digest(image.manifest, ret, &f->err), 0);
	image_close(&image);
}

static void test_own(void **state)
{
	struct fixture *f = *state;
	struct image image;

	assert_int_equal(image_open("a", &image, &f->err), -ENOENT);
	assert_said(f, "wisp image build");
	assert_int_equal(image_open("../a", &image, &f->err), -EINVAL);
	make_image(f, "images/a", "k");
	assert_int_equal(image_open("a", &image, &f->err), 0);
	assert_int_equal(image_size(&image), 20);
	assert_int_equal(image.place, IMAGE_OWN);
	assert_int_equal(image_verify(&image, &f->err), 0);
	write_text(f, "images/a/initrd", "hellp");
	assert_int_equal(image_verify(&image, &f->err), -EBADMSG);
	assert_said(f, "initrd is damaged");
	image_close(&image);
	write_text(f, "images/a/initrd", "hell");
	assert_int_equal(image_open("a", &image, &f->err), -EBADMSG);
	write_text(f, "images/b/manifest.json", "{\"format\": 99}");
	assert_int_equal(image_open("b", &image, &f->err), -EBADMSG); /* no parts */
	make_image(f, "images/b", "k");
	write_text(f, "images/b/manifest.json", "{\"format\": 99}");
	assert_int_equal(image_open("b", &image, &f->err), -EPROTONOSUPPORT);
	write_text(f, "images/b/manifest.json", "{");
	assert_int_equal(image_open("b", &image, &f->err), -EBADMSG);
	assert_int_equal(image_remove("b", &f->err), 0);
	assert_int_equal(image_remove("b", &f->err), -ENOENT);
}

static void set_stores(struct fixture *f, const char *a, const char *b)
{
	CLEANUP_FREE char *text = io_format("%s/%s/::%s/none:%s/%s", f->dir, a, f->dir, f->dir, b);

	setenv("WISP_STORE", text, 1);
}

static void test_places(void **state)
{
	struct fixture *f = *state;
	char first[DIGEST_TEXT], second[DIGEST_TEXT];
	struct image_entry *list;
	struct image image;
	size_t n;

	make_image(f, "images/a", "one");
	make_image(f, "s1/a", "two");
	make_image(f, "s1/.hidden", "two");
	make_image(f, "s2/a", "two");
	make_image(f, "s2/b", "three");
	write_text(f, "s2/no name", "x");
	set_stores(f, "s1", "s2");
	assert_int_equal(image_list(&list, &n, &f->err), 0);
	assert_true(n >= 4); /* the machine's site may have some */
	assert_string_equal(list[0].name, "a");
	assert_int_equal(list[0].place, IMAGE_OWN);
	assert_false(list[0].hidden);
	assert_true(list[1].hidden && list[1].place == IMAGE_STORE && list[2].hidden);
	assert_string_equal(list[3].name, "b");
	assert_false(list[3].hidden);
	assert_int_equal(image_open_entry(&list[2], &image, &f->err), 0);
	assert_int_equal(image_digest(image.manifest, second, &f->err), 0);
	image_close(&image);
	image_list_done(list, n);

	digest_of(f, "a", first);
	assert_string_not_equal(first, second);
	assert_int_equal(image_open("b", &image, &f->err), 0);
	assert_int_equal(image.place, IMAGE_STORE);
	image_close(&image);
	/* It is not the user's. */
	assert_int_equal(image_remove("b", &f->err), -EPERM);
	setenv("WISP_STORE", "s1:/x", 1);
	assert_int_equal(image_open("a", &image, &f->err), -EINVAL);
	assert_said(f, "$WISP_STORE has \"s1\"");
}

static void check_opens(struct fixture *f, const char *reference, const char *end_of_folder)
{
	struct image image;

	assert_int_equal(image_open(reference, &image, &f->err), 0);
	assert_non_null(strstr(image.folder, end_of_folder));
	assert_true(image.pinned);
	image_close(&image);
}

static void test_pins(void **state)
{
	struct fixture *f = *state;
	char one[DIGEST_TEXT], two[DIGEST_TEXT];
	CLEANUP_FREE char *pin_one = NULL, *pin_two = NULL, *any_two = NULL, *wrong = NULL;
	struct image image;

	make_image(f, "images/a", "two");
	digest_of(f, "a", two);
	make_image(f, "images/a", "one");
	digest_of(f, "a", one);
	make_image(f, "s1/a", "two");
	make_image(f, "s2/b", "two");
	set_stores(f, "s1", "s2");
	pin_one = io_format("a@sha256:%s", one);
	pin_two = io_format("a@sha256:%s", two);
	any_two = io_format("@sha256:%s", two);
	wrong = io_format("b@sha256:%s", one);
	check_opens(f, pin_one, "/images/a");
	check_opens(f, pin_two, "/s1/a");
	check_opens(f, any_two, "/s1/a");
	assert_int_equal(image_open(wrong, &image, &f->err), -EBADMSG);
	assert_said(f, "image b has the digest sha256:");
	two[0] = two[0] == '0' ? '1' : '0';
	free(take_ptr(any_two));
	any_two = io_format("@sha256:%s", two);
	assert_int_equal(image_open(any_two, &image, &f->err), -ENOENT);
	assert_int_equal(image_open("a@sha256:12", &image, &f->err), -EINVAL);
	assert_int_equal(image_open("a@", &image, &f->err), -EINVAL);
	assert_int_equal(image_open("", &image, &f->err), -EINVAL);
	/* Damage elsewhere does not keep an image from being found. */
	write_text(f, "s1/a/initrd", "hell");
	check_opens(f, strchr(pin_two, '@'), "/s2/b");
}

static void change_mode(struct fixture *f, const char *name, mode_t mode, int wanted)
{
	CLEANUP_FREE char *path = below(f, name);
	struct image image;
	struct stat st;
	int rc;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(chmod(path, mode), 0);
	f->err.text[0] = 0;
	rc = image_open("s", &image, &f->err);
	assert_int_equal(rc, wanted);
	if (rc == 0)
		image_close(&image);
	else
		assert_said(f, name);
	assert_int_equal(chmod(path, st.st_mode & 07777), 0);
}

/* Who else can write to it, or above it, could make it another image. */
static void test_safe(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *from = NULL, *to = NULL;
	struct image image;

	make_image(f, "deep/store/s", "k");
	set_stores(f, "none", "deep/store");
	change_mode(f, "deep/store/s", 0755, 0);
	change_mode(f, "deep/store/s", 0775, -EPERM);
	change_mode(f, "deep/store/s", 01777, -EPERM);
	change_mode(f, "deep/store/s/initrd", 0646, -EPERM);
	change_mode(f, "deep/store/s/manifest.json", 0664, -EPERM);
	change_mode(f, "deep/store", 0777, -EPERM);
	change_mode(f, "deep/store", 01777, 0);
	change_mode(f, "deep", 0775, -EPERM);
	assert_int_equal(image_open("s", &image, &f->err), 0);
	image_close(&image);
	from = below(f, "deep/store/s/vmlinuz");
	to = below(f, "vmlinuz");
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(symlink(to, from), 0);
	assert_int_equal(image_open("s", &image, &f->err), -EPERM);
	assert_said(f, "neither a file nor a folder");
}

static void test_foreign(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *path = below(f, "images/a/initrd");
	struct image image;

	if (geteuid() != 0)
		skip();
	make_image(f, "images/a", "k");
	assert_int_equal(chown(path, 12345, 0), 0);
	assert_int_equal(image_open("a", &image, &f->err), -EPERM);
	assert_said(f, "belongs to user 12345");
}

/* As if nobody had touched it for a while. */
static void verify_again(struct fixture *f, int wanted)
{
	struct image image;

	assert_int_equal(image_open("a", &image, &f->err), 0);
	assert_int_equal(image_verify_once(&image, &f->err), wanted);
	image_close(&image);
}

static void test_mark(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *part = below(f, "images/a/initrd"), *marks = below(f, "verified");

	make_image(f, "images/a", "k");
	verify_again(f, 0);
	assert_int_equal(rmdir(marks), 0); /* too young for one */
	sleep(3);
	verify_again(f, 0);
	assert_int_equal(rmdir(marks), -1);
	verify_again(f, 0);
	/* The same size and time, another content: ctime tells. */
	write_text(f, "images/a/initrd", "hellp");
	assert_int_equal(utime(part, &(struct utimbuf){1, 1}), 0);
	verify_again(f, -EBADMSG);
	assert_said(f, "initrd is damaged");
}

/* Of the content alone: not of the name, the time or who built it, but of every other byte. */
static void test_digest(void **state)
{
	static const char *const same[] = {
		"{\"key\": \"k\", \"format\": 1}",
		"{\"format\": 1, \"key\": \"k\", \"name\": \"a\", \"created\": \"c\"}",
		"{\"builder\": \"b\", \"key\": \"k\", \"format\": 1, \"name\": \"b\"}",
	};
	char first[DIGEST_TEXT], digest[DIGEST_TEXT];
	json_t *json;

	digest_bytes("{\"format\":1,\"key\":\"k\"}", 22, first, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		json = json_loads(same[i], 0, NULL);
		assert_int_equal(image_digest(json, digest, NULL), 0);
		assert_string_equal(digest, first);
		json_decref(json);
	}
	json = json_loads("{\"key\": \"K\", \"format\": 1}", 0, NULL);
	assert_int_equal(image_digest(json, digest, NULL), 0);
	assert_string_not_equal(digest, first);
	json_decref(json);
}

/* Not signed is refused wherever somebody asks for it. */
static void test_admit(void **state)
{
	struct fixture *f = *state;
	json_t *environment = json_pack("{s:b}", "signed", true);
	struct image_demand demand = {.keys = f->dir};
	CLEANUP_FREE char *pin = NULL;
	char digest[DIGEST_TEXT];
	struct image image;

	make_image(f, "images/a", "k");
	assert_int_equal(image_admit("a", &demand, &image, &f->err), 0);
	image_close(&image);
	demand.is_signed = true;
	assert_int_equal(image_admit("a", &demand, &image, &f->err), -ENODATA);
	assert_said(f, "a signed image is asked for: image a is not signed");
	demand = (struct image_demand){.keys = f->dir, .environment = environment};
	assert_int_equal(image_admit("a", &demand, &image, &f->err), -ENODATA);
	assert_said(f, "the environment says signed: yes");
	demand = (struct image_demand){.keys = f->dir};
	write_text(f, "images/b/manifest.json",
		   "{\"format\": 1, \"environment\": {\"signed\": true}, \"parts\": {" PARTS "}}");
	for (const char *const *p =
		     (const char *const[]){"vmlinux", "vmlinuz", "initrd", "root.squashfs", NULL};
	     *p; p++) {
		CLEANUP_FREE char *name = io_format("images/b/%s", *p);

		write_text(f, name, "hello");
	}
	assert_int_equal(image_admit("b", &demand, &image, &f->err), -ENODATA);
	assert_said(f, "the environment it was built of says signed: yes");
	/* One that is named by its digest is checked whole. */
	digest_of(f, "a", digest);
	pin = io_format("a@sha256:%s", digest);
	assert_int_equal(image_admit(pin, &demand, &image, &f->err), 0);
	image_close(&image);
	write_text(f, "images/a/vmlinux", "hellO");
	assert_int_equal(image_admit(pin, &demand, &image, &f->err), -EBADMSG);
	json_decref(environment);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_own),	 WITH_FOLDER(test_places),	WITH_FOLDER(test_pins),
		WITH_FOLDER(test_safe),	 WITH_FOLDER(test_foreign),	WITH_FOLDER(test_mark),
		WITH_FOLDER(test_admit), cmocka_unit_test(test_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
