/* SPDX-License-Identifier: Apache-2.0 */
/* The table of device kinds that --device offers, and the parser of its value. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/error.h"
#include "vmm/device.h"
#include "vmm/devices.h"

/* clang-format off */
const struct device_desc *const device_table[] = {
	&block_desc,
	&net_desc,
	&vsock_desc,
	&rng_desc,
	&console_desc,
	&fs_desc,
	&vfio_desc,
	NULL,
};
/* clang-format on */

const char *device_config_get(const struct device_config *cfg, const char *key)
{
	for (unsigned i = 0; cfg->desc->keys[i].name; i++)
		if (!strcmp(cfg->desc->keys[i].name, key))
			return cfg->value[i];
	return NULL;
}

static int set_key(struct device_config *cfg, char *item, struct error *err)
{
	char *equals = strchr(item, '=');
	const struct device_key *keys = cfg->desc->keys;

	if (equals)
		*equals = 0;
	for (unsigned i = 0; keys[i].name; i++) {
		if (strcmp(keys[i].name, item))
			continue;
		if (cfg->value[i])
			return error_set(err, -EINVAL, "device %s: %s is given twice",
					 cfg->desc->name, item);
		if (!equals && keys[i].arg)
			return error_set(err, -EINVAL, "device %s: %s needs a value (%s=%s)",
					 cfg->desc->name, item, item, keys[i].arg);
		cfg->value[i] = equals ? equals + 1 : "on";
		return 0;
	}
	return error_set(err, -EINVAL, "device %s has no key \"%s\" (--help lists them)",
			 cfg->desc->name, item);
}

static int parse_keys(char *text, struct device_config *cfg, struct error *err)
{
	const struct device_key *keys = cfg->desc->keys;
	char *save = NULL;
	int r = 0;

	for (char *item = strtok_r(text, ",", &save); item && !r; item = strtok_r(NULL, ",", &save))
		r = set_key(cfg, item, err);
	for (unsigned i = 0; !r && keys[i].name; i++)
		if (keys[i].required && !cfg->value[i])
			r = error_set(err, -EINVAL, "device %s needs %s=%s", cfg->desc->name,
				      keys[i].name, keys[i].arg);
	return r;
}

int device_config_parse(const char *text, struct device_config *ret, struct error *err)
{
	char *copy = strdup(text); /* the values point into it */
	size_t len = strcspn(text, ",");
	struct device_config cfg = {.text = copy};
	int r;

	if (!copy)
		return error_errno(err, -ENOMEM, "device");
	for (unsigned i = 0; device_table[i]; i++)
		if (strlen(device_table[i]->name) == len &&
		    !strncmp(device_table[i]->name, text, len))
			cfg.desc = device_table[i];
	if (!cfg.desc)
		r = error_set(err, -EINVAL, "there is no device \"%.*s\" (--help lists them)",
			      (int)len, text);
	else
		r = parse_keys(copy + len + (copy[len] == ','), &cfg, err);
	if (r)
		free(copy);
	else
		*ret = cfg;
	return r;
}
