/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_LIB_LOOKUP_H
#define WISP_LIB_LOOKUP_H

/*
 * Addresses of a host by name, in a thread of its own: nothing ends getaddrinfo() while a name
 * server does not answer. Any thread, one at a time.
 */

struct addrinfo;
struct error;
struct lookup;

/* Addresses for stream sockets. Returns 0 or -errno. */
int lookup_start(const char *host, const char *port, struct lookup **ret, struct error *err);

/* Readable when the answer has come. The lookup's. */
int lookup_fd(const struct lookup *l);

/* Then: 0 and at least one address in *ret, the lookup's; or -EHOSTUNREACH with the reason. */
int lookup_result(const struct lookup *l, const struct addrinfo **ret, struct error *err);

/* Sets the pointer to NULL; accepts a pointer to NULL. */
void lookup_drop(struct lookup **l);

#endif
