/* SPDX-License-Identifier: Apache-2.0 */
/* Checked parsing of numbers, sizes, CPU lists and addresses. */

#include "lib/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/cleanup.h"
#include "lib/error.h"

/*
 * Reads digits of the base; returns the first byte behind them, NULL when there are none. What
 * does not fit in 64 bits sets *overflow.
 */
static const char *scan_digits(const char *text, unsigned base, uint64_t *ret, bool *overflow)
{
	const char *p = text;
	uint64_t v = 0;

	*overflow = false;
	for (; isxdigit((unsigned char)*p); p++) {
		unsigned digit = *p <= '9' ? (unsigned)*p - '0' : ((unsigned)*p | 0x20) - 'a' + 10;

		if (digit >= base)
			break;
		*overflow |= __builtin_mul_overflow(v, base, &v);
		*overflow |= __builtin_add_overflow(v, digit, &v);
	}
	*ret = v;
	return p > text ? p : NULL;
}

/* The same where a number that does not fit is no number: all limits are far lower. */
static const char *scan_number(const char *text, unsigned base, uint64_t *ret)
{
	bool overflow;
	const char *end = scan_digits(text, base, ret, &overflow);

	return overflow ? NULL : end;
}

int parse_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *ret,
	      struct error *err)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	bool overflow;
	uint64_t v;
	const char *end = scan_digits(hex ? text + 2 : text, hex ? 16 : 10, &v, &overflow);

	if (!end || *end)
		return error_set(err, -EINVAL, "%s \"%s\" is not a number", what, text);
	if (overflow || v < min || v > max)
		return error_set(err, -ERANGE, "%s %s is out of range (%llu to %llu)", what, text,
				 (unsigned long long)min, (unsigned long long)max);
	*ret = v;
	return 0;
}

int parse_uint(const char *text, const char *what, unsigned min, unsigned max, unsigned *ret,
	       struct error *err)
{
	uint64_t v;
	int r = parse_u64(text, what, min, max, &v, err);

	if (!r)
		*ret = (unsigned)v;
	return r;
}

int parse_bool(const char *text, const char *what, bool *ret, struct error *err)
{
	static const char *const yes[] = {"on", "yes", "true", "1"};
	static const char *const no[] = {"off", "no", "false", "0"};

	for (unsigned i = 0; i < ARRAY_SIZE(yes); i++) {
		if (!strcmp(text, yes[i])) {
			*ret = true;
			return 0;
		}
		if (!strcmp(text, no[i])) {
			*ret = false;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "%s \"%s\" is neither on nor off", what, text);
}

/* The shift of a unit ("M", "MiB", "MB", any case), -1 if there is no such unit. */
static int unit_shift(const char *unit)
{
	static const char letters[] = "KMGT";
	const char *p;

	if (!strcasecmp(unit, "B"))
		return 0;
	p = strchr(letters, toupper((unsigned char)unit[0]));
	if (!p || !unit[0])
		return -1;
	if (unit[1] && strcasecmp(unit + 1, "iB") && strcasecmp(unit + 1, "B"))
		return -1;
	return 10 * (int)(p - letters + 1);
}

int parse_size(const char *text, uint64_t default_unit, uint64_t *ret, struct error *err)
{
	bool overflow;
	uint64_t v, factor;
	const char *end = scan_digits(text, 10, &v, &overflow);
	int shift = 0;

	if (end && end[0] == ' ' && end[1])
		end++;
	if (end && *end)
		shift = unit_shift(end);
	if (!end || shift < 0)
		return error_set(err, -EINVAL,
				 "size \"%s\" is not a number with a unit K, M, G or T", text);
	factor = *end ? 1ULL << shift : default_unit ? default_unit : 1;
	if (overflow || __builtin_mul_overflow(v, factor, &v))
		return error_set(err, -ERANGE, "size %s is too large", text);
	*ret = v;
	return 0;
}

const char *format_size(uint64_t bytes, char *buf, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	unsigned u = 0;

	while (bytes && !(bytes & 1023) && u + 1 < ARRAY_SIZE(units)) {
		bytes >>= 10;
		u++;
	}
	snprintf(buf, size, "%llu %s", (unsigned long long)bytes, units[u]);
	return buf;
}

/* One element of a CPU list: "a", "a-b" or "a-b:step". Returns the byte behind it or NULL. */
static const char *scan_cpu_range(const char *p, cpu_set_t *set)
{
	uint64_t first, last, step = 1;

	p = scan_number(p, 10, &first);
	if (!p)
		return NULL;
	last = first;
	if (*p == '-') {
		p = scan_number(p + 1, 10, &last);
		if (p && *p == ':')
			p = scan_number(p + 1, 10, &step);
	}
	if (!p || last < first || last >= CPU_SETSIZE || !step || step >= CPU_SETSIZE)
		return NULL;
	for (uint64_t cpu = first; cpu <= last; cpu += step)
		CPU_SET(cpu, set);
	return p;
}

int parse_cpulist(const char *text, cpu_set_t *ret, struct error *err)
{
	cpu_set_t set;
	const char *p = text;

	CPU_ZERO(&set);
	for (;;) {
		p = scan_cpu_range(p, &set);
		if (!p || (*p && *p != ','))
			return error_set(err, -EINVAL,
					 "CPU list \"%s\" is not like 0-3,8 with ids below %d",
					 text, CPU_SETSIZE);
		if (!*p++)
			break;
	}
	*ret = set;
	return 0;
}

const char *format_cpulist(const cpu_set_t *set, char *buf, size_t size)
{
	size_t used = 0;

	buf[0] = 0;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		int last = cpu, n;

		if (!CPU_ISSET(cpu, set))
			continue;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, set))
			last++;
		n = snprintf(buf + used, size - used, last > cpu ? "%s%d-%d" : "%s%d",
			     used ? "," : "", cpu, last);
		if ((size_t)n >= size - used) {
			snprintf(buf + (used > 3 ? used - 3 : 0), size - (used > 3 ? used - 3 : 0),
				 "...");
			break;
		}
		used += (size_t)n;
		cpu = last;
	}
	return buf;
}

int parse_pci_address(const char *text, struct pci_address *ret, struct error *err)
{
	uint64_t part[3];
	uint64_t function;
	unsigned n = 0;
	const char *p = text;

	do {
		p = scan_number(p, 16, &part[n++]);
	} while (p && *p == ':' && n < ARRAY_SIZE(part) && p++);
	if (!p || n < 2 || *p != '.')
		goto bad;
	p = scan_number(p + 1, 16, &function);
	if (!p || *p)
		goto bad;
	if (n == 2) {
		part[2] = part[1];
		part[1] = part[0];
		part[0] = 0;
	}
	if (part[0] > UINT32_MAX || part[1] > 0xff || part[2] > 31 || function > 7)
		goto bad;
	*ret = (struct pci_address){
		.domain = (uint32_t)part[0],
		.bus = (uint8_t)part[1],
		.device = (uint8_t)part[2],
		.function = (uint8_t)function,
	};
	return 0;
bad:
	return error_set(err, -EINVAL,
			 "PCI address \"%s\" is not like 0000:3b:00.1 (domain:bus:device.function)",
			 text);
}

int parse_mac(const char *text, uint8_t ret[6], struct error *err)
{
	static const uint8_t none[6];
	uint8_t mac[6];
	const char *p = text;

	for (int i = 0; i < 6; i++) {
		uint64_t v;
		const char *end = scan_number(p, 16, &v);

		if (!end || end != p + 2 || *end != (i < 5 ? ':' : 0))
			return error_set(err, -EINVAL,
					 "MAC address \"%s\" is not like 02:00:5e:00:53:01", text);
		mac[i] = (uint8_t)v;
		p = end + 1;
	}
	if (mac[0] & 1 || !memcmp(mac, none, sizeof(mac)))
		return error_set(err, -EINVAL, "MAC address \"%s\" is no address of one interface",
				 text);
	memcpy(ret, mac, sizeof(mac));
	return 0;
}
