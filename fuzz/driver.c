/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libFuzzer where there is no clang: runs a target on every file of a folder
 * and on random changes of them, or on files named on the command line (to see a crash again).
 * Always the same sequence, so that a failure can be had again.
 */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_INPUTS 256
#define MAX_SIZE (1u << 16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	uint8_t *data;
	size_t size;
};

struct corpus {
	struct input inputs[MAX_INPUTS];
	unsigned n;
	uint64_t random;
};

/* xorshift64* */
static uint32_t next_random(struct corpus *c, uint32_t below)
{
	c->random ^= c->random >> 12;
	c->random ^= c->random << 25;
	c->random ^= c->random >> 27;
	return (uint32_t)((c->random * 0x2545f4914f6cdd1dull) >> 32) % below;
}

static void add_file(struct corpus *c, const char *path)
{
	FILE *f = fopen(path, "rb");
	struct input *in = &c->inputs[c->n];

	if (!f || c->n == MAX_INPUTS)
		goto out;
	in->data = malloc(MAX_SIZE);
	if (!in->data)
		abort();
	in->size = fread(in->data, 1, MAX_SIZE, f);
	c->n++;
out:
	if (f)
		fclose(f);
}

static void add_folder(struct corpus *c, const char *path)
{
	struct dirent **list;
	int n = scandir(path, &list, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		char name[4096];

		if (list[i]->d_name[0] != '.' && snprintf(name, sizeof(name), "%s/%s", path,
							  list[i]->d_name) < (int)sizeof(name))
			add_file(c, name);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

static void change(struct corpus *c, uint8_t *buf, size_t *size)
{
	static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff};
	uint32_t times = 1 + next_random(c, 8);

	while (times-- && *size) {
		uint32_t at = next_random(c, (uint32_t)*size);

		switch (next_random(c, 5)) {
		case 0:
			buf[at] ^= (uint8_t)(1u << next_random(c, 8));
			break;
		case 1:
			buf[at] = edges[next_random(c, sizeof(edges))];
			break;
		case 2:
			buf[at] = (uint8_t)next_random(c, 256);
			break;
		case 3:
			*size = at;
			break;
		default:
			if (*size < MAX_SIZE) {
				memmove(buf + at + 1, buf + at, *size - at);
				++*size;
			}
			break;
		}
	}
}

/* A copy with exactly its size, so that the address sanitizer sees reads past the end. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void run_random(struct corpus *c, unsigned long runs)
{
	uint8_t *buf = malloc(MAX_SIZE);

	if (!buf)
		abort();
	for (unsigned long i = 0; i < runs; i++) {
		size_t size;

		if (c->n) {
			const struct input *in = &c->inputs[next_random(c, c->n)];

			size = in->size;
			memcpy(buf, in->data, size);
			change(c, buf, &size);
		} else {
			size = next_random(c, 4096);
			for (size_t k = 0; k < size; k++)
				buf[k] = (uint8_t)next_random(c, 256);
		}
		run(buf, size);
	}
	free(buf);
}

int main(int argc, char **argv)
{
	struct corpus c = {.random = 88172645463325252ull};
	unsigned long runs = 0;

	for (int i = 1; i < argc; i++) {
		struct stat st;

		if (!strncmp(argv[i], "--runs=", 7))
			runs = strtoul(argv[i] + 7, NULL, 10);
		else if (!stat(argv[i], &st) && S_ISDIR(st.st_mode))
			add_folder(&c, argv[i]);
		else
			add_file(&c, argv[i]);
	}
	for (unsigned i = 0; i < c.n; i++)
		run(c.inputs[i].data, c.inputs[i].size);
	run_random(&c, runs);
	printf("%u inputs, %lu changed ones\n", c.n, runs);
	for (unsigned i = 0; i < c.n; i++)
		free(c.inputs[i].data);
	return 0;
}
