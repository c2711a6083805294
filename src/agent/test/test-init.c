/* SPDX-License-Identifier: Apache-2.0 */
/* What init reads: command line, superblocks, hosts. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/agent.h"
#include "agent/hosts.h"
#include "agent/init.h"
#include "agent/modules.h"
#include "agent/root.h"
#include "lib/error.h"
#include "lib/io.h"

static void put(const char *dir, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	assert_int_equal(io_make_dirs(dir, 0700, NULL), 0);
	assert_int_equal(io_write_file(path, text, strlen(text), NULL), 0);
}

static void test_device(void **state)
{
	char dir[] = "/tmp/test-init.XXXXXX", device[64], command[64];

	assert_non_null(mkdtemp(dir));
	assert_false(init_has_device(dir, "1af4:105a"));
	snprintf(device, sizeof(device), "%s/0000:00:01.0", dir);
	put(device, "vendor", "0x1af4\n");
	put(device, "device", "0x1042\n");
	assert_false(init_has_device(dir, "1af4:105a"));
	snprintf(device, sizeof(device), "%s/0000:00:02.0", dir);
	put(device, "vendor", "0x1af4\n");
	put(device, "device", "0x105a\n");
	assert_true(init_has_device(dir, "1af4:105a"));
	assert_false(init_has_device(dir, "1af4"));
	assert_false(init_has_device(dir, "8086:105a"));
	assert_false(init_has_device("/nosuch", "1af4:105a"));
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

static void test_command_line(void **state)
{
	struct init_config c;

	assert_int_equal(
		init_config_parse("console=ttyS0 wisp.root=/dev/vda wisp.name=n1 "
				  "wisp.net=eth0,10.0.0.1/24 quiet wisp.net=eth1,10.1.0.1/8 "
				  "\"wisp.exec=/bin/a b\" wisp.dns=192.0.2.1 "
				  "wisp.hosts=\"a=1.2.3.4\" wisp.root "
				  "xwisp.name=no wisp.listen=vsock:1024\n",
				  &c, NULL),
		0);
	assert_string_equal(c.root, "/dev/vda");
	assert_string_equal(c.name, "n1");
	assert_int_equal(c.net_count, 2);
	assert_string_equal(c.nets[1], "eth1,10.1.0.1/8");
	assert_string_equal(c.exec, "/bin/a b");
	assert_string_equal(c.hosts, "a=1.2.3.4");
	assert_string_equal(c.dns, "192.0.2.1");
	assert_int_equal(c.listen_count, 1);
	init_config_done(&c);
	assert_int_equal(init_config_parse("", &c, NULL), 0);
	assert_null(c.root);
	init_config_done(&c);
}

static void test_too_many(void **state)
{
	char line[1024] = "";
	struct init_config c;
	struct error err;

	for (int i = 0; i < 17; i++)
		strcat(line, "wisp.net=eth0,10.0.0.1/24 ");
	assert_int_equal(init_config_parse(line, &c, &err), -E2BIG);
}

static void test_superblocks(void **state)
{
	uint8_t data[4096] = {0};

	assert_null(root_detect(data, sizeof(data)));
	memcpy(data, "hsqs", 4);
	assert_string_equal(root_detect(data, sizeof(data)), "squashfs");
	memset(data, 0, 4);
	memcpy(data + 1024, "\xe2\xe1\xf5\xe0", 4);
	assert_string_equal(root_detect(data, sizeof(data)), "erofs");
	assert_null(root_detect(data, 1026));
	memset(data + 1024, 0, 4);
	memcpy(data + 1024 + 56, "\x53\xef\x01\x00", 4);
	assert_string_equal(root_detect(data, sizeof(data)), "ext4");
}

/* A link there is not followed; what is no address changes nothing. */
static void test_name_servers(void **state)
{
	char path[] = "/tmp/test-names.XXXXXX";
	char *text = NULL;
	struct error err;

	close(mkstemp(path));
	unlink(path);
	assert_int_equal(symlink("/nosuch/resolv.conf", path), 0);
	assert_int_equal(configure_names(path, "192.0.2.1,x", &err), -EINVAL);
	assert_int_equal(configure_names(path, "192.0.2.1,192.0.2.2", &err), 0);
	assert_true(io_read_file(path, 65536, &text, NULL) > 0);
	assert_string_equal(text, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
	free(text);
	unlink(path);
}

static char *hosts_after(const char *path, const char *json, int expected)
{
	json_t *hosts = json_loads(json, 0, NULL);
	char *text = NULL;
	struct error err;

	assert_int_equal(hosts_set(path, hosts, &err), expected);
	json_decref(hosts);
	if (io_read_file(path, 65536, &text, NULL) < 0)
		return NULL;
	return text;
}

static void test_hosts(void **state)
{
	char path[] = "/tmp/test-hosts.XXXXXX";
	char *text;

	close(mkstemp(path));
	io_write_file(path, "127.0.0.1 localhost\n# mine\n", 27, NULL);
	text = hosts_after(path, "[{\"name\":\"a\",\"address\":\"10.0.0.1\"}]", 0);
	assert_string_equal(text, "127.0.0.1 localhost\n# mine\n10.0.0.1\ta\t# wisp\n");
	free(text);
	/* Again with others: ours are replaced, the rest stays. */
	text = hosts_after(path, "[{\"name\":\"b\",\"address\":\"10.0.0.2\"}]", 0);
	assert_string_equal(text, "127.0.0.1 localhost\n# mine\n10.0.0.2\tb\t# wisp\n");
	free(text);
	text = hosts_after(path, "[{\"name\":\"b\\nx\",\"address\":\"10.0.0.2\"}]", -EINVAL);
	assert_string_equal(text, "127.0.0.1 localhost\n# mine\n10.0.0.2\tb\t# wisp\n");
	free(text);
	free(hosts_after(path, "[{\"name\":\"b\",\"address\":\"here\"}]", -EINVAL));
	free(hosts_after(path, "{}", -EINVAL));
	unlink(path);
	text = hosts_after(path, "[]", 0);
	assert_string_equal(text, "127.0.0.1\tlocalhost\n::1\tlocalhost\n");
	free(text);
	unlink(path);
}

static void test_net_words(void **state)
{
	static const char *const bad[] = {"",
					  "eth0",
					  "eth0,10.0.0.1",
					  "lo,10.0.0.1/33",
					  "lo,10.0.0/8",
					  "lo,10.0.0.1/8,gateway"};
	struct error err;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(configure_net(bad[i], &err), -EINVAL);
	assert_int_equal(configure_net("nosuch0,10.0.0.1/8", &err), -ENODEV);
	assert_int_equal(configure_net("02:00:5e:00:53:77,10.0.0.1/8", &err), -ENODEV);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_command_line), cmocka_unit_test(test_device),
		cmocka_unit_test(test_too_many),     cmocka_unit_test(test_superblocks),
		cmocka_unit_test(test_name_servers), cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_net_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
