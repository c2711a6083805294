/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_CHANNEL_TLS_H
#define WISP_CHANNEL_TLS_H

/*
 * TLS 1.3 with a key that both ends know, and nothing else: no certificates, no earlier version, no
 * resumption. What is sent gets a new key long before the old one has encrypted too much. Over a
 * connected socket that does not block from here on. No call waits; each says what to wait for. One
 * thread may send while another receives. SIGPIPE has to be ignored.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct tls;

#define TLS_KEY 32

/*
 * identity: what the key is for, the same at both ends; a literal. fd stays the caller's. Returns 0
 * or -errno.
 */
int tls_create(int fd, bool server, const char *identity, const uint8_t key[TLS_KEY],
	       struct tls **ret, struct error *err);
void tls_destroy(struct tls *tls);

/*
 * Bytes done; 0 for the end of what the peer sends; -EAGAIN with *wait POLLIN or POLLOUT; else
 * -errno: -EPROTONOSUPPORT is no TLS at all, -EPROTO any other fault of it. The handshake (returns
 * 1) comes first.
 */
ssize_t tls_handshake(struct tls *tls, short *wait, struct error *err);
ssize_t tls_receive(struct tls *tls, void *buf, size_t n, short *wait, struct error *err);
ssize_t tls_send(struct tls *tls, const void *buf, size_t n, short *wait, struct error *err);

/* For tests: so many records under one key instead, and how often the peer has changed its own. */
void tls_limit(struct tls *tls, uint64_t records);
uint64_t tls_updates(struct tls *tls);

/* Something has come already: to wait for the socket would be wrong. */
bool tls_pending(struct tls *tls);

#endif
