/* holder.h: the thread that gives service addresses to this board's interfaces and takes them away.
 * It obeys the core's orders and knows no rule of the pool (cluster/address_pool.h) but one (S2):
 * without a lease the board has no service address.
 *
 *   probing --nobody answers--> held --not in the order--> leaving --sessions told--> gone
 *      |  ^                      | the kernel refuses
 *      v  |  (again after RETRY_MS)  v
 *     taken: another machine     failed
 *
 * The lease is kept three times over. This thread removes every address when the lease ends, and
 * when it finds that it did not look for that long. An address has a life in the kernel that ends
 * with the lease and is prolonged with it, so that it goes also if this process stands still or was
 * killed. And what a daemon that was killed has left is removed before the next one serves.
 *
 * All three need the kernel's lock of network settings (RTNL), the life in the kernel, too: while
 * somebody keeps that lock an address stays, whatever its lease (decisions/0012). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cluster/roll.h"
#include "lib/buf.h"
#include "proto/peer.pb-c.h"

struct core_view;
struct holder;

struct holder_upcalls {
	void *arg;
	const struct core_view *view; /* of it the lease only */
	/* What the board has now, and could have; taken over. `letter`: the newest order that was
	 * opened. In this thread, as the next. */
	void (*report)(void *arg, uint64_t letter, Tb__PeerAddressReport *report);
	/* The address is about to go: end the sessions at it, while they can be told. */
	void (*leaving)(void *arg, const struct ip *ip);
};

struct holder_options {
	const char *sites_listen; /* as configured: must be any address */
	bool tickle; /* see tickle.h */
};

/* Removes what an earlier daemon left, then starts the thread. Without the right to do anything it
 * starts all the same, and the reports say so. `upcalls` is copied; its view may be set later, by
 * holder_begin, before which nothing is done. */
struct holder *holder_start(const struct holder_options *options);
void holder_begin(struct holder *h, const struct holder_upcalls *upcalls);
/* The board ends in order: lets everything go, and says so in a last report, before this returns
 * (a second at most). */
void holder_retire(struct holder *h);
/* Ends the thread: no upcall comes any more. Waits for as long as the kernel keeps it. */
void holder_stop(struct holder *h);
/* After holder_stop, when nobody reads its numbers any more. */
void holder_free(struct holder *h);

/* Any thread, each returns at once. */
/* All that the board is to have; copied. `letter` grows with each; an order of serial 0 takes the
 * one before out of force. `until_ms`: the end of the lease that the order came under (boot clock).
 */
void holder_hold(struct holder *h, uint64_t letter, const Tb__PeerAddressOrder *order,
		 uint64_t until_ms);
/* Makes the clients at these ends notice, some at a time; taken over. */
void holder_tickle(struct holder *h, struct roll_ends *ends, size_t count);

struct holder_stats {
	uint64_t held; /* now */
	uint64_t taken; /* addresses taken since the start */
	uint64_t conflicts; /* found with another machine */
	uint64_t tickled; /* clients */
};
/* Any thread. */
void holder_stats(const struct holder *h, struct holder_stats *ret);
/* For metrics_collect. */
void holder_metrics(void *holder, bool open, struct buf *out);
