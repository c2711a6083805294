/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_PART_PUMP_H
#define WISP_PART_PUMP_H

/*
 * Bytes between streams of a connection and descriptors, both ways, each with its own end; who
 * does not read holds back who writes. On the loop.
 */

#include <stddef.h>
#include <stdint.h>

struct conn;
struct error;
struct loop;
struct pumps;

int pumps_create(struct loop *loop, struct conn *conn, struct pumps **ret, struct error *err);
/* Closes all descriptors. Accepts NULL. */
void pumps_destroy(struct pumps *pumps);

/* Opens a stream that has no descriptor yet: what comes waits. */
int pump_open(struct pumps *pumps, uint32_t stream, struct error *err);

/* Its descriptor, a stream socket, which is the pump's now. */
void pump_connect(struct pumps *pumps, uint32_t stream, int fd);

/* There is none: both ends. */
void pump_close(struct pumps *pumps, uint32_t stream);

/* From the connection's ops. */
void pumps_data(struct pumps *pumps, uint32_t stream, const uint8_t *data, size_t n);
void pumps_sent(struct pumps *pumps, uint32_t stream);

#endif
