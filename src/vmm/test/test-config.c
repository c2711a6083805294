/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of wisp-vmm: every option, every refusal with its text, device keys. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/command.h"
#include "lib/error.h"
#include "vmm/config.h"

#define MIB (1ULL << 20)

/* The words live on: the configuration points into them. */
static int parse(struct vm_config *c, const char *line, struct error *err)
{
	static char words[1024];
	char *argv[80] = {NULL}, *save = NULL;
	int argc = 1;

	snprintf(words, sizeof(words), "%s", line);
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	memset(err, 0, sizeof(*err));
	return config_parse(c, argc, argv, err);
}

static void test_defaults(void **state)
{
	struct vm_config c;
	struct error err;

	assert_int_equal(parse(&c, "--kernel k", &err), 1);
	assert_string_equal(c.kernel, "k");
	assert_null(c.initrd);
	assert_string_equal(c.cmdline, "console=ttyS0");
	assert_string_equal(c.name, "vm");
	assert_int_equal(c.memory, 256 * MIB);
	assert_int_equal(c.page_size, 4096);
	assert_false(c.prefault);
	assert_int_equal(topology_vcpus(&c.topology), 1);
	assert_string_equal(c.cpu_model, "host");
	assert_false(c.pinned);
	assert_int_equal(c.irqchip, IRQCHIP_KERNEL);
	assert_string_equal(c.serial, "stdio");
	assert_int_equal(c.ndevices, 0);
	assert_null(c.control);
	assert_true(c.restart_on_reboot);
	assert_int_equal(c.log_level, LOG_WARN);
	assert_null(c.log_file);
}

static void test_all(void **state)
{
	struct vm_config c;
	struct error err;

	assert_int_equal(
		parse(&c,
		      "-k k -i i -a quiet -n vm1 -m 3584 --page-size 2M --prefault "
		      "-c sockets=2,cores=3 --cpu-model x86-64-v3 --pin 1,3-4 --irqchip split "
		      "-s none -d rng -d block,path=/x,readonly --control c --on-reboot exit "
		      "--log-level debug --log-file l",
		      &err),
		1);
	assert_string_equal(c.initrd, "i");
	assert_string_equal(c.cmdline, "quiet");
	assert_string_equal(c.name, "vm1");
	assert_int_equal(c.memory, 3584 * MIB);
	assert_int_equal(c.page_size, 2 * MIB);
	assert_true(c.prefault);
	assert_int_equal(c.topology.sockets, 2);
	assert_int_equal(c.topology.cores, 3);
	assert_string_equal(c.cpu_model, "x86-64-v3");
	assert_true(c.pinned);
	assert_int_equal(CPU_COUNT(&c.pin), 3);
	assert_int_equal(c.irqchip, IRQCHIP_SPLIT);
	assert_string_equal(c.serial, "none");
	assert_int_equal(c.ndevices, 2);
	assert_string_equal(device_config_get(&c.device[1], "path"), "/x");
	assert_string_equal(device_config_get(&c.device[1], "readonly"), "on");
	assert_string_equal(c.control, "c");
	assert_false(c.restart_on_reboot);
	assert_int_equal(c.log_level, LOG_DEBUG);
	assert_string_equal(c.log_file, "l");
	config_done(&c);
}

static void test_refused(void **state)
{
	static const struct {
		const char *line;
		int r;
		const char *text;
	} cases[] = {
		{"", -EINVAL, "no kernel given (--kernel FILE; --help tells more)"},
		{"-m 1G", -EINVAL, "no kernel given"},
		{"--incoming", -EINVAL, "--incoming needs --control PATH"},
		{"--incoming --control c -k k", -EINVAL, "takes no --kernel and no --initrd"},
		{"--incoming --control c -i i", -EINVAL, "takes no --kernel and no --initrd"},
		{"-k k extra", -EINVAL, "unexpected argument \"extra\""},
		{"-k", -EINVAL, "option --kernel needs a value (FILE)"},
		{"-k k --frobnicate", -EINVAL, "unknown option --frobnicate"},
		{"-k k -m lots", -EINVAL, "size \"lots\" is not a number"},
		{"-k k -m 17592186044416T", -ERANGE, "is too large"},
		{"-k k --page-size big", -EINVAL, "size \"big\""},
		{"-k k -c 0", -ERANGE, "number of vCPUs 0 is out of range (1 to 254)"},
		{"-k k -c 255", -ERANGE, "number of vCPUs 255 is out of range"},
		{"-k k -c cores=200,threads=2", -ERANGE, "are more than 254 vCPUs"},
		{"-k k --pin", -EINVAL, "option --pin needs a value (LIST)"},
		{"-k k --pin 3-1", -EINVAL, "CPU list \"3-1\" is not like 0-3,8"},
		{"-k k --irqchip apic", -EINVAL, "irqchip \"apic\" is neither kernel nor split"},
		{"-k k --on-reboot stop", -EINVAL,
		 "on-reboot \"stop\" is neither exit nor restart"},
		{"-k k --log-level loud", -EINVAL, "log level \"loud\" is not one of"},
		{"-k k --name a/b", -EINVAL, "VM name \"a/b\" must have 1 to 63 characters"},
		{"-k k --name=", -EINVAL, "VM name \"\" must have"},
		{"-k k --prefault=yes", -EINVAL, "option --prefault takes no value"},
		{"-k k -d disk", -EINVAL, "there is no device \"disk\" (--help lists them)"},
		{"-k k -d blocks", -EINVAL, "there is no device \"blocks\""},
		{"-k k -d=", -EINVAL, "there is no device \"=\""},
		{"-k k -d block", -EINVAL, "device block needs path="},
		{"-k k -d block,path", -EINVAL, "device block: path needs a value (path="},
		{"-k k -d block,path=a,path=b", -EINVAL, "device block: path is given twice"},
		{"-k k -d block,path=a,color=red", -EINVAL,
		 "device block has no key \"color\" (--help lists them)"},
		{"-k k -d block,path=a,pat=b", -EINVAL, "device block has no key \"pat\""},
		{"-k k -d serial", -EINVAL, "there is no device \"serial\""},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vm_config c = {.memory = 77};
		struct error err;
		int r = parse(&c, cases[i].line, &err);

		if (r != cases[i].r || !strstr(err.text, cases[i].text))
			fail_msg("\"%s\": %d, \"%s\"", cases[i].line, r, err.text);
		assert_int_equal(c.memory, 77);
	}
}

/* n times some of two block devices and a net device. */
static int parse_devices(struct vm_config *c, unsigned kinds, unsigned n, struct error *err)
{
	char line[1024] = "-k k";

	for (unsigned i = 0; i < n; i++) {
		strcat(line, " -d block,path=x");
		if (kinds > 1)
			strcat(line, " -d net,tap=t");
		if (kinds > 2)
			strcat(line, " -d block,path=y");
	}
	return parse(c, line, err);
}

static void test_too_many_devices(void **state)
{
	struct vm_config c;
	struct error err;

	/* Of one kind, and of all together. */
	assert_int_equal(parse_devices(&c, 1, 16, &err), 1);
	config_done(&c);
	assert_int_equal(parse_devices(&c, 1, 17, &err), -ENOSPC);
	assert_string_equal(err.text, "a VM can have 16 block devices, no more");
	assert_int_equal(parse(&c, "-k k -d rng -d rng", &err), -ENOSPC);
	assert_string_equal(err.text, "a VM can have 1 rng device, no more");
	assert_int_equal(parse_devices(&c, 2, 8, &err), 1);
	assert_int_equal(c.ndevices, 16);
	config_done(&c);
	assert_int_equal(parse_devices(&c, 3, 8, &err), 1);
	assert_int_equal(c.ndevices, CONFIG_DEVICES_MAX);
	config_done(&c);
	assert_int_equal(parse_devices(&c, 3, 9, &err), -ENOSPC);
	assert_string_equal(err.text, "more than 24 devices");
}

/* No kind takes more keys than a configuration can hold, no kind or key is there twice. */
static void test_table(void **state)
{
	for (unsigned i = 0; device_table[i]; i++) {
		const struct device_desc *d = device_table[i];
		unsigned n = 0;

		assert_true(d->name && d->summary && d->create && d->max);
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(d->name, device_table[k]->name);
		for (; d->keys[n].name; n++) {
			assert_non_null(d->keys[n].help);
			assert_null(strpbrk(d->keys[n].name, ",= "));
			for (unsigned k = 0; k < n; k++)
				assert_string_not_equal(d->keys[n].name, d->keys[k].name);
		}
		assert_in_range(n, 0, DEVICE_KEYS_MAX);
	}
}

static void test_device_parse(void **state)
{
	struct device_config cfg;
	struct error err;

	assert_int_equal(device_config_parse("block,path=a=b,readonly", &cfg, &err), 0);
	assert_string_equal(cfg.desc->name, "block");
	assert_string_equal(device_config_get(&cfg, "path"), "a=b");
	assert_string_equal(device_config_get(&cfg, "readonly"), "on");
	free(cfg.text);
	assert_int_equal(device_config_parse("block,path=,readonly=off", &cfg, &err), 0);
	assert_string_equal(device_config_get(&cfg, "path"), "");
	assert_string_equal(device_config_get(&cfg, "readonly"), "off");
	free(cfg.text);
	assert_int_equal(device_config_parse("rng", &cfg, &err), 0);
	assert_null(device_config_get(&cfg, "no-such-key"));
	free(cfg.text);
	assert_int_equal(device_config_parse("", &cfg, &err), -EINVAL);
	assert_int_equal(device_config_parse(",path=x", &cfg, &err), -EINVAL);
	assert_int_equal(device_config_parse("block,=x", &cfg, &err), -EINVAL);
}

/* What --help, --version and --man-options print, by way of a file. */
static char *printed(const char *line)
{
	static char text[32768];
	struct vm_config c;
	struct error err;
	char path[] = "/tmp/wisp-test-XXXXXX";
	int saved = dup(1), fd = mkstemp(path), r;
	ssize_t n;

	fflush(stdout);
	dup2(fd, 1);
	r = parse(&c, line, &err);
	fflush(stdout);
	dup2(saved, 1);
	n = pread(fd, text, sizeof(text) - 1, 0);
	close(saved);
	close(fd);
	unlink(path);
	assert_int_equal(r, 0);
	text[n > 0 ? n : 0] = 0;
	return text;
}

static void test_printed(void **state)
{
	char *text = printed("--help");

	for (const struct option_desc *o = vmm_command.options; o->id; o++)
		assert_non_null(strstr(text, o->name));
	for (unsigned i = 0; device_table[i]; i++)
		assert_non_null(strstr(text, device_table[i]->summary));
	assert_non_null(strstr(text, "path=FILE (needed)"));
	assert_string_equal(printed("-h -k x --nonsense"), text);
	assert_memory_equal(printed("--version"), "wisp-vmm ", 9);
	assert_non_null(strstr(printed("--man-options"), "*--kernel* FILE"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults), cmocka_unit_test(test_all),
		cmocka_unit_test(test_refused),	 cmocka_unit_test(test_too_many_devices),
		cmocka_unit_test(test_table),	 cmocka_unit_test(test_device_parse),
		cmocka_unit_test(test_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
