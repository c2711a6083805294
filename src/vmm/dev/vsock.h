/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WISP_VMM_VSOCK_H
#define WISP_VMM_VSOCK_H

/*
 * The private half of the vsock device. vsock.c is the device, vsock-mux.c exchanges packets
 * with the guest, vsock-conn.c is the host's end of each connection: a UNIX stream socket.
 * Lock: the VM's.
 *
 * Towards the host: PATH listens, a client says which guest port it wants; the guest connects
 * to PATH_<port>. See docs/formats/vsock-unix.md.
 */

#include <linux/virtio_vsock.h>
#include <sys/queue.h>

#include "vmm/dev/rxpool.h"
#include "vmm/dev/vhost.h"
#include "vmm/virtio/virtio.h"

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };

#define VSOCK_HOST_CID 2
#define VSOCK_HEADER sizeof(struct virtio_vsock_hdr)
/* What the guest may send on one connection before the host's program reads it. */
#define VSOCK_BUFFER (256u << 10)
#define VSOCK_CONNS_MAX 16384
#define VSOCK_BUCKETS 1024
#define VSOCK_RESETS 128
#define VSOCK_BOTH (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

enum conn_state {
	CONN_CONNECTING, /* the guest's request; the host's listener is busy */
	CONN_HELLO,	 /* accepted from the host, its CONNECT line is being read */
	CONN_REQUESTED,	 /* the guest was asked */
	CONN_OPEN,
	CONN_LINGER, /* over for the guest; its last data still goes to the host */
	CONN_DEAD,   /* over; the guest is to be told */
};

/* Packets to send when the guest has a buffer for them. */
#define SEND_REQUEST 1u
#define SEND_RESPONSE 2u
#define SEND_CREDIT_REQUEST 4u
#define SEND_CREDIT_UPDATE 8u
#define SEND_RESET 16u /* CONN_LINGER */

struct conn {
	struct vsock *vs;
	enum conn_state state;
	uint32_t guest_port, host_port;
	int fd; /* owned; -1 when the host's side is gone */
	struct loop_source *source;
	uint32_t events; /* what the source waits for */

	unsigned send;	    /* SEND_* */
	bool want_read;	    /* the socket may have data */
	bool hung_up;	    /* the host closed; what it sent may still be in the socket */
	bool asked_credit;  /* and no credit came since */
	uint8_t host_shut;  /* VIRTIO_VSOCK_SHUTDOWN_*: the host's program closed that way */
	uint8_t told_shut;  /* and the guest knows */
	uint8_t guest_shut; /* the guest closed that way */

	/* Host to guest: the guest's room, what it consumed, what we sent. */
	uint32_t guest_alloc, guest_fwd, sent;
	/* Guest to host: what came, what the socket took, what we told the guest about that. */
	uint32_t received, forwarded, told_forwarded;
	char *buf; /* received but not forwarded, VSOCK_BUFFER bytes; NULL while empty */
	uint32_t buf_start, buf_len;
	char line[24]; /* CONN_HELLO: the start of its line */
	unsigned line_len;
	unsigned tries; /* CONN_CONNECTING */

	bool hashed, working;
	LIST_ENTRY(conn) bucket;
	TAILQ_ENTRY(conn) all, work;
};

struct vsock_reset {
	uint32_t guest_port, host_port;
};

struct vsock {
	struct virtio virtio;
	uint64_t cid;
	const char *path;
	struct vhost vhost;

	int listen_fd;
	struct loop_source *listen_source, *retry;
	LIST_HEAD(, conn) bucket[VSOCK_BUCKETS];
	TAILQ_HEAD(conn_list, conn) all, work;
	unsigned nconns, max_conns;
	uint32_t next_port; /* for connections from the host */

	struct virtq_chain chain;
	struct rxpool rx;
	bool running;				/* between start and stop: the rings may be used */
	bool starved;				/* the guest has no receive buffers; it will kick */
	bool tx_blocked;			/* resets is full */
	bool reset_event;			/* the guest is to be told TRANSPORT_RESET */
	bool reset_told;			/* it was, and has not taken notice yet */
	uint16_t events_added;			/* event buffers it had added then */
	struct vsock_reset reset[VSOCK_RESETS]; /* for packets that belong to no connection */
	unsigned nresets;

	uint64_t opened, refused, to_guest, to_host;
};

/* vsock-mux.c */

struct conn *vsock_find(struct vsock *vs, uint32_t guest_port, uint32_t host_port);
void vsock_add(struct conn *conn);
void vsock_forget(struct conn *conn); /* nothing happens when it is not known */
void vsock_kick_rx(struct vsock *vs);
void vsock_kick_tx(struct vsock *vs);
void vsock_kick_event(struct vsock *vs);

/* Queues the connection for vsock_work(). */
void vsock_want_work(struct conn *conn);

/* Sends what waits as far as the guest has buffers. Connections may be gone after it. */
void vsock_work(struct vsock *vs);

/* vsock-conn.c */

/* The listener at PATH. */
int conn_listen(struct vsock *vs, struct error *err);
void conn_listen_stop(struct vsock *vs);

/* The guest's request for a host port: a new connection, or NULL when that is refused. */
struct conn *conn_connect(struct vsock *vs, uint32_t guest_port, uint32_t host_port);

/*
 * The guest accepted the host's request; it refused or reset a connection, which may be gone
 * afterwards.
 */
void conn_accepted(struct conn *conn);
void conn_reset_by_guest(struct conn *conn);

/* The guest closed flags' directions of an open connection. */
void conn_shut_by_guest(struct conn *conn, uint8_t flags);

/* Takes len bytes (iov) that the guest sent within its credit. */
void conn_receive(struct conn *conn, const struct iovec *iov, unsigned n, uint32_t len);

/* Nothing more comes from the host. */
void conn_host_ended(struct conn *conn);

/* Ends the connection at once; the guest gets a reset. */
void conn_reset(struct conn *conn);

/* What the guest has room for. */
uint32_t conn_credit(const struct conn *conn);

/* Starts or stops waiting for events (EPOLLIN, EPOLLOUT) of the socket. */
void conn_watch(struct conn *conn, uint32_t events, bool on);

/* Takes the socket out of the loop, and puts it back. */
int conn_attach(struct conn *conn);
void conn_detach(struct conn *conn);

/*
 * Ends the guest's part: what it sent before still reaches the host. The guest waits for a
 * reset if owes_reset. The connection may be gone afterwards.
 */
void conn_leave(struct conn *conn, bool owes_reset);
void conn_free(struct conn *conn);

#endif
