/* queue.h: a split virtqueue (virtio 1.2, 2.7), the device's side, against a hostile driver.
 *
 * Everything the driver writes is read once and checked. A chain is walked at most `size` steps
 * (indirect tables likewise), every buffer goes through ram_at. What is malformed is -EBADMSG: the
 * caller declares that the device needs a reset (virtio.h) and does not touch the queue again.
 * Pure but for the guest's memory; no lock: the device lock is held. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "hv/ram.h"

enum {
	QUEUE_SIZE_MAX = 256, /* a power of two */
	QUEUE_CHAIN_MAX = 130, /* buffers in one chain: 128 of data, head and status */
};

struct queue {
	/* Set by the driver through the transport while not ready. */
	uint16_t size; /* a power of two, 1..QUEUE_SIZE_MAX, or 0: never usable */
	uint64_t desc, avail, used; /* guest addresses of the three areas */
	bool ready; /* set by queue_enable only */
	bool event_idx; /* VIRTIO_F_EVENT_IDX negotiated */
	bool indirect; /* VIRTIO_F_INDIRECT_DESC negotiated */
	/* Valid while ready. */
	const struct ram *ram;
	const void *desc_at;
	void *avail_at, *used_at; /* host's places of the three areas */
	uint16_t next_avail; /* the next entry of the available ring to be looked at */
	uint16_t next_used; /* the next entry of the used ring to be written */
	uint16_t signalled; /* next_used at the last interrupt (2.7.7.1) */
	bool signalled_valid;
};

/* One request: first the buffers the device reads, then those it writes (2.7.4.2). The pointers are
 * into guest memory and stay valid for the life of the ram. */
struct chain {
	uint16_t head; /* for queue_push */
	uint16_t out_count; /* iov[0 .. out_count): device reads */
	uint16_t in_count; /* iov[out_count .. out_count + in_count): device writes */
	uint32_t out_len, in_len; /* bytes; both sums are below 2^32 (checked) */
	struct iovec iov[QUEUE_CHAIN_MAX];
};

/* Checks and translates the areas; true if the queue is usable, then ready is set. next_avail and
 * next_used stay as they are: 0 after queue_reset, or what a snapshot had. */
bool queue_enable(struct queue *q, const struct ram *ram);
/* Back to zero: all fields but none of the limits. */
void queue_reset(struct queue *q);
/* All of the following is harmless on a queue that is not ready: nothing to pop, pushes are
 * dropped. */

/* The next chain: 1 and *ret; 0: none; -EBADMSG. */
int queue_pop(struct queue *q, struct chain *ret);
/* Undoes the last queue_pop whose chain was not pushed (no buffer for a packet). */
void queue_unpop(struct queue *q);
/* Gives the chain back with `written` bytes of its device-writable part filled. */
void queue_push(struct queue *q, uint16_t head, uint32_t written);
/* The same, but the driver sees it only together with the next queue_push: for what it must find
 * all of at once (5.1.6.4, a frame in several chains). */
void queue_put(struct queue *q, uint16_t head, uint32_t written);
/* Must the driver be interrupted for what was pushed since the last time this was asked? */
bool queue_must_signal(struct queue *q);
/* Asks the driver for a notification with the next buffer. True if buffers came in the meantime:
 * pop again. */
bool queue_want_kick(struct queue *q);
/* Tells the driver that notifications are not needed for now (a hint). */
void queue_spare_kick(struct queue *q);
/* Does the driver know already that a notification is wanted with the next buffer? Only reads: what
 * is written into a clone's memory costs it a page. */
bool queue_kick_wanted(const struct queue *q);
/* Are there chains not yet popped? */
bool queue_has_work(const struct queue *q);
/* The used ring's index as it is in guest memory: next_used when somebody else (vhost) ran a ready
 * queue. */
uint16_t queue_used_idx(const struct queue *q);

/* Bytes between the scattered buffers and a flat one, at most `len`, from `offset` of the readable
 * (out) or writable (in) part. Returns the bytes copied. */
size_t chain_read(const struct chain *c, size_t offset, void *to, size_t len);
size_t chain_write(const struct chain *c, size_t offset, const void *from, size_t len);
