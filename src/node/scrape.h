/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_NODE_SCRAPE_H
#define WISP_NODE_SCRAPE_H

/*
 * Serves a text at /metrics to readers of Prometheus' format: just enough of HTTP/1.1 (RFC 9112),
 * one answer a connection. Never waits, also not for one who reads or writes slowly. For the thread
 * of the loop.
 */

struct error;
struct loop;
struct scrape;

/* A new string in *ret, or -errno. */
typedef int scrape_fn(void *arg, char **ret, struct error *err);

/*
 * where: the path of a UNIX socket (it has a "/"; mode 0600), PORT on the loopback device, or
 * ADDRESS:PORT. Port 0: any.
 */
int scrape_create(struct loop *loop, const char *where, scrape_fn *fn, void *arg,
		  struct scrape **ret, struct error *err);
void scrape_destroy(struct scrape *s); /* accepts NULL */

/* Of TCP, else 0. */
unsigned scrape_port(const struct scrape *s);

#endif
