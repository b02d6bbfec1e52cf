#include "witnessd/holder.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "cluster/address_pool.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/json.h"
#include "witnessd/core.h"
#include "witnessd/links.h"
#include "witnessd/metrics.h"
#include "witnessd/neighbour.h"
#include "witnessd/tickle.h"

enum {
	TURN_MS = 50, /* while something is on its way */
	REFRESH_MS = 500, /* of the lives in the kernel */
	LOOK_MS = 1000, /* at the interfaces */
	PROBE_AGAIN_MS = 100,
	PROBE_MS = 250, /* nobody has answered for so long: it is free */
	RETRY_MS = 5000, /* after a refusal or a conflict */
	LEAVE_MS = 200, /* for the doors to end the sessions */
	ANNOUNCEMENTS = 5,
	TICKLES_PER_TURN = 50, /* 1,000 clients per second: no more than can be let in again */
	TICKLE_ROUNDS = 2, /* a packet may be lost */
	TICKLE_AGAIN_MS = 1500,
	TICKLES_MAX = ROLL_MAX,
	PACKETS_PER_TURN = 256,
	RETIRE_MS = 1000,
	LETTERS_MAX = 10000,
};

/* After the first one, which goes out at once. */
static const unsigned announce_after_ms[ANNOUNCEMENTS] = {0, 200, 500, 1000, 2000};

enum berth_state { BERTH_PROBING, BERTH_HELD, BERTH_TAKEN, BERTH_FAILED, BERTH_LEAVING };

/* A service address that this board is to have, or still has. */
struct berth {
	bool used;
	struct ip ip;
	unsigned prefix;
	char interface[LIMIT_INTERFACE + 1];
	char text[IP_TEXT];
	enum berth_state state;
	char detail[160]; /* of TAKEN and FAILED, for a person */
	uint64_t since_ms; /* of the state */
	uint64_t life_ms; /* the kernel itself removes it then */
	int index; /* of the interface that it was added to; 0: it was not */
	int probe_fd; /* -1: none */
	unsigned probes;
	unsigned announcements;
	uint64_t announce_ms; /* the next one */
};

struct tickle_queue {
	struct roll_ends *ends;
	size_t count, room;
	size_t next;
	unsigned round;
	uint64_t not_before_ms;
};

struct holder {
	pthread_t thread;
	uv_loop_t loop;
	struct mailbox mailbox;
	uv_timer_t timer;
	struct holder_upcalls up;
	char *sites_listen;
	bool tickle;
	bool begun;
	bool retiring;
	bool stopping;
	bool dirty; /* a report is due */
	uv_sem_t retired;
	struct links *links; /* NULL: no netlink at all */
	char problem[200];
	struct link_info interfaces[LINKS_MAX];
	unsigned interface_count;
	uint64_t look_ms;
	uint64_t refresh_ms;
	uint64_t lease_ms; /* its end as last seen; 0: none */
	uint64_t serial; /* of the order in force, 0 none */
	uint64_t letter; /* the newest order that was opened */
	struct berth berths[2 * LIMIT_ADDRESSES]; /* those that leave count as well */
	struct tickle_queue queue;
	int raw_fd[2]; /* IPv4, IPv6; -1: not open */
	_Atomic uint64_t held, taken, conflicts, tickled;
};

/* --- interfaces --- */

static const struct link_info *interface_find(const struct holder *h, const char *name)
{
	for (unsigned i = 0; i < h->interface_count; i++)
		if (strcmp(h->interfaces[i].name, name) == 0)
			return &h->interfaces[i];
	return NULL;
}

static void problem_set(struct holder *h, const char *text)
{
	if (strcmp(h->problem, text) == 0)
		return;
	snprintf(h->problem, sizeof(h->problem), "%s", text);
	h->dirty = true;
}

static bool listens_everywhere(const char *listen)
{
	return strncmp(listen, "*:", 2) == 0 || strncmp(listen, "[::]:", 5) == 0 ||
	       strncmp(listen, "0.0.0.0:", 8) == 0;
}

/* Asked by removing an address that nobody has: the kernel looks at the rights first. */
static bool rights_missing(struct links *l)
{
	struct ip nobody = {.len = 4, .bytes = {192, 0, 2, 255}};
	int rv = links_address_remove(l, 1, &nobody, 32);

	return rv == -EPERM || rv == -EACCES;
}

static bool raw_missing(void)
{
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		close(fd);
	return fd < 0;
}

static void problem_find(struct holder *h)
{
	char text[sizeof(h->problem)];

	if (h->retiring)
		problem_set(h, "witnessd is being stopped there");
	else if (h->links == NULL || rights_missing(h->links))
		problem_set(h, "witnessd may not change addresses there (CAP_NET_ADMIN; see "
			       "witnessd.service)");
	else if (raw_missing())
		problem_set(h, "witnessd may not send raw packets there (CAP_NET_RAW; see "
			       "witnessd.service)");
	else if (!listens_everywhere(h->sites_listen)) {
		snprintf(text, sizeof(text),
			 "its door for sites is at %.100s only; write sites.listen = *:5403",
			 h->sites_listen);
		problem_set(h, text);
	} else {
		problem_set(h, "");
	}
}

static void interfaces_look(struct holder *h, uint64_t now)
{
	struct link_info seen[LINKS_MAX];
	unsigned count = 0;

	if (now < h->look_ms)
		return;
	h->look_ms = now + LOOK_MS;
	if (h->links == NULL || links_list(h->links, seen, &count) != 0)
		return;
	memset(&seen[count], 0, (LINKS_MAX - count) * sizeof(seen[0]));
	if (count == h->interface_count && memcmp(seen, h->interfaces, sizeof(seen)) == 0)
		return;
	memcpy(h->interfaces, seen, sizeof(seen));
	h->interface_count = count;
	h->dirty = true;
}

/* --- reports --- */

static Tb__AddressState berth_word(const struct berth *b)
{
	switch (b->state) {
	case BERTH_PROBING:
		return TB__ADDRESS_STATE__ADDRESS_STATE_TAKING;
	case BERTH_HELD:
		return TB__ADDRESS_STATE__ADDRESS_STATE_HELD;
	case BERTH_TAKEN:
		return TB__ADDRESS_STATE__ADDRESS_STATE_TAKEN;
	case BERTH_LEAVING:
		return TB__ADDRESS_STATE__ADDRESS_STATE_LEAVING;
	case BERTH_FAILED:
		break;
	}
	return TB__ADDRESS_STATE__ADDRESS_STATE_NOBODY;
}

static void report_send(struct holder *h)
{
	Tb__PeerAddressReport *report = mem_alloc(sizeof(*report));
	uint64_t held = 0;

	h->dirty = false;
	tb__peer_address_report__init(report);
	report->serial = h->serial;
	report->problem = mem_strdup(h->problem);
	report->held = mem_array(2 * LIMIT_ADDRESSES, sizeof(report->held[0]));
	report->interfaces = mem_array(LINKS_MAX, sizeof(report->interfaces[0]));
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++) {
		const struct berth *b = &h->berths[i];
		Tb__AddressHeld *row;

		if (!b->used)
			continue;
		row = mem_alloc(sizeof(*row));
		tb__address_held__init(row);
		row->address = mem_strdup(b->text);
		row->state = berth_word(b);
		row->detail = mem_strdup(b->detail);
		report->held[report->n_held++] = row;
		held += b->state == BERTH_HELD;
	}
	for (unsigned i = 0; i < h->interface_count; i++)
		if (h->interfaces[i].up)
			report->interfaces[report->n_interfaces++] =
				mem_strdup(h->interfaces[i].name);
	h->held = held;
	h->up.report(h->up.arg, h->letter, report);
}

/* --- packets --- */

/* A socket that sends and hears packets of one protocol at one interface; negative errno. */
static int packet_open(const struct link_info *link, uint16_t protocol)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(protocol),
				 .sll_ifindex = link->index};
	int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rv;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
		return fd;
	rv = -errno;
	close(fd);
	return rv;
}

/* One that is lost is sent again, as it is anyway. */
static void packet_send(int fd, const struct link_info *link, const struct neighbour_packet *p)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(p->protocol),
				 .sll_ifindex = link->index,
				 .sll_halen = NEIGHBOUR_MAC};

	memcpy(to.sll_addr, p->to, NEIGHBOUR_MAC);
	sendto(fd, p->bytes, p->len, 0, (struct sockaddr *)&to, sizeof(to));
}

static void berth_announce(struct holder *h, struct berth *b, uint64_t now)
{
	const struct link_info *link = interface_find(h, b->interface);
	struct neighbour_packet packet;
	int fd;

	if (b->announcements == ANNOUNCEMENTS || now < b->announce_ms)
		return;
	if (link != NULL && link->ethernet) {
		neighbour_announce(&b->ip, link->mac, b->announcements, &packet);
		fd = packet_open(link, packet.protocol);
		if (fd >= 0) {
			packet_send(fd, link, &packet);
			close(fd);
		}
	}
	b->announcements++;
	if (b->announcements < ANNOUNCEMENTS)
		b->announce_ms = now + announce_after_ms[b->announcements];
}

/* --- an address --- */

static void berth_move(struct holder *h, struct berth *b, enum berth_state state, uint64_t now)
{
	if (b->probe_fd >= 0)
		close(b->probe_fd);
	b->probe_fd = -1;
	b->state = state;
	b->since_ms = now;
	if (state != BERTH_TAKEN && state != BERTH_FAILED)
		b->detail[0] = '\0';
	h->dirty = true;
}

__attribute__((format(printf, 5, 6))) static void berth_fail(struct holder *h, struct berth *b,
							     enum berth_state state, uint64_t now,
							     const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(b->detail, sizeof(b->detail), format, args);
	va_end(args);
	log_warning(state == BERTH_TAKEN ? "address-conflict" : "address-failed", "%s: %s", b->text,
		    b->detail);
	berth_move(h, b, state, now);
}

/* False: the kernel keeps it, and so does the board in what it says, until its life is over. */
static bool berth_undo(struct holder *h, struct berth *b)
{
	int rv;

	if (b->index == 0)
		return true;
	rv = links_address_remove(h->links, b->index, &b->ip, b->prefix);
	if (rv != 0 && rv != -EADDRNOTAVAIL && rv != -ENODEV) {
		log_warning("address-stays",
			    "cannot remove %s from %s: %s; the kernel does when "
			    "its life ends",
			    b->text, b->interface, strerror(-rv));
		if (clock_boottime_ms() < b->life_ms)
			return false;
	}
	b->index = 0;
	return true;
}

static void berth_drop(struct holder *h, struct berth *b, uint64_t now)
{
	bool had = b->index != 0;

	berth_move(h, b, BERTH_LEAVING, now);
	if (!berth_undo(h, b))
		return; /* tried again after LEAVE_MS */
	b->used = false;
	if (had)
		log_notice("address-gone", "%s is no longer at %s", b->text, b->interface);
}

/* The seconds that an address may live in the kernel from now; 0: no whole one is left. */
static unsigned lease_life_s(const struct holder *h, uint64_t now)
{
	return now + ADDRESS_SPARE_MS < h->lease_ms
		       ? (unsigned)((h->lease_ms - now - ADDRESS_SPARE_MS) / 1000)
		       : 0;
}

/* Adds it, or prolongs its life. */
static void berth_add(struct holder *h, struct berth *b, uint64_t now)
{
	const struct link_info *link = interface_find(h, b->interface);
	/* Now, not at the turn's begin: the kernel may have kept the calls before this one waiting.
	 */
	unsigned life_s = lease_life_s(h, clock_boottime_ms());
	bool fresh = b->index == 0;
	int rv;

	if (life_s == 0)
		return; /* the next renewal is near, or the end */
	if (link == NULL || !link->up) {
		if (!berth_undo(h, b))
			berth_move(h, b, BERTH_LEAVING, now);
		else
			berth_fail(h, b, BERTH_FAILED, now, "the interface %s is %s", b->interface,
				   link == NULL ? "not there" : "down or has no carrier");
		return;
	}
	b->index = link->index;
	rv = links_address_add(h->links, link->index, &b->ip, b->prefix, life_s);
	b->life_ms = clock_boottime_ms() + (life_s + 1) * 1000; /* kernels round */
	if (rv != 0) {
		/* One that could not be prolonged may still be there. */
		if (!berth_undo(h, b)) {
			berth_move(h, b, BERTH_LEAVING, now);
			return;
		}
		berth_fail(h, b, BERTH_FAILED, now, "the kernel refuses it at %s: %s", b->interface,
			   strerror(-rv));
		return;
	}
	if (!fresh)
		return;
	h->taken++;
	log_notice("address-held", "%s/%u is at %s now", b->text, b->prefix, b->interface);
	berth_move(h, b, BERTH_HELD, now);
	b->announcements = 0;
	b->announce_ms = now;
	berth_announce(h, b, now);
}

/* --- is it free? --- */

struct own_search {
	const struct ip *ip;
	bool found;
};

static void own_visit(void *arg, const struct link_address *address)
{
	struct own_search *search = arg;

	search->found |= !address->ours && ip_equal(&address->ip, search->ip);
}

static bool is_own_address(struct holder *h, const struct ip *ip)
{
	struct own_search search = {.ip = ip};

	/* In doubt it is: an own address that got a life would end with it. */
	return links_addresses(h->links, own_visit, &search) != 0 || search.found;
}

static void probe_begin(struct holder *h, struct berth *b, uint64_t now)
{
	const struct link_info *link = interface_find(h, b->interface);

	berth_move(h, b, BERTH_PROBING, now);
	b->probes = 0;
	if (link == NULL || !link->up) {
		berth_fail(h, b, BERTH_FAILED, now, "the interface %s is %s", b->interface,
			   link == NULL ? "not there" : "down or has no carrier");
	} else if (is_own_address(h, &b->ip)) {
		h->conflicts++;
		berth_fail(h, b, BERTH_TAKEN, now, "it is an own address of the board");
	} else if (link->ethernet) {
		b->probe_fd = packet_open(link, b->ip.len == 4 ? ETH_P_ARP : ETH_P_IPV6);
	}
}

/* True: somebody says that he has it. */
static bool probe_heard(struct holder *h, struct berth *b, uint64_t now)
{
	uint16_t protocol = b->ip.len == 4 ? ETH_P_ARP : ETH_P_IPV6;
	uint8_t bytes[256];

	for (unsigned i = 0; i < PACKETS_PER_TURN; i++) {
		struct sockaddr_ll from = {0};
		socklen_t from_len = sizeof(from);
		uint8_t mac[NEIGHBOUR_MAC];
		ssize_t got = recvfrom(b->probe_fd, bytes, sizeof(bytes), 0,
				       (struct sockaddr *)&from, &from_len);

		if (got < 0)
			return false;
		if (from.sll_pkttype == PACKET_OUTGOING ||
		    !neighbour_claims(protocol, bytes, (size_t)got, &b->ip, mac))
			continue;
		h->conflicts++;
		berth_fail(h, b, BERTH_TAKEN, now,
			   "another machine has it: %02x:%02x:%02x:%02x:%02x:%02x answers at %s",
			   mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], b->interface);
		return true;
	}
	return false;
}

static void probe_step(struct holder *h, struct berth *b, uint64_t now)
{
	const struct link_info *link = interface_find(h, b->interface);
	struct neighbour_packet packet;

	if (b->probe_fd < 0 || link == NULL) {
		/* No Ethernet: nobody to ask. */
		berth_add(h, b, now);
		return;
	}
	if (probe_heard(h, b, now))
		return;
	if (b->probes < 2 && now >= b->since_ms + b->probes * PROBE_AGAIN_MS) {
		neighbour_probe(&b->ip, link->mac, &packet);
		packet_send(b->probe_fd, link, &packet);
		b->probes++;
	}
	if (now >= b->since_ms + PROBE_MS)
		berth_add(h, b, now);
}

/* --- the lease --- */

static void berths_drop_all(struct holder *h, uint64_t now)
{
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++)
		if (h->berths[i].used)
			berth_drop(h, &h->berths[i], now);
}

/* Before anything else of a turn. A lease that ended and is there again is another one: meanwhile
 * the addresses may have been given away. */
static void lease_look(struct holder *h, uint64_t now)
{
	uint64_t until = atomic_load(&h->up.view->lease_until_ms);
	bool over = until <= now || (h->lease_ms != 0 && now >= h->lease_ms);

	h->lease_ms = until > now ? until : 0;
	if (!over || h->serial == 0)
		return;
	h->dirty = true;
	h->serial = 0;
	berths_drop_all(h, now);
}

/* --- turns --- */

static void berth_step(struct holder *h, struct berth *b, bool refresh, uint64_t now)
{
	switch (b->state) {
	case BERTH_PROBING:
		probe_step(h, b, now);
		break;
	case BERTH_HELD:
		if (refresh)
			berth_add(h, b, now);
		if (b->state == BERTH_HELD)
			berth_announce(h, b, now);
		break;
	case BERTH_TAKEN:
	case BERTH_FAILED:
		if (now >= b->since_ms + RETRY_MS)
			probe_begin(h, b, now);
		break;
	case BERTH_LEAVING:
		if (now >= b->since_ms + LEAVE_MS)
			berth_drop(h, b, now);
		break;
	}
}

static void tickle_send(struct holder *h, const struct roll_ends *ends)
{
	int *fd = &h->raw_fd[ends->local.len == 4 ? 0 : 1];
	uint8_t bytes[TICKLE_BYTES];
	size_t len = tickle_packet(ends, bytes);

	if (*fd < 0)
		*fd = socket(ends->local.len == 4 ? AF_INET : AF_INET6,
			     SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
	if (*fd < 0)
		return;
	if (ends->local.len == 4) {
		struct sockaddr_in to = {.sin_family = AF_INET};

		memcpy(&to.sin_addr, ends->remote.bytes, 4);
		sendto(*fd, bytes, len, 0, (struct sockaddr *)&to, sizeof(to));
	} else {
		struct sockaddr_in6 to = {.sin6_family = AF_INET6};

		memcpy(&to.sin6_addr, ends->remote.bytes, 16);
		sendto(*fd, bytes, len, 0, (struct sockaddr *)&to, sizeof(to));
	}
	h->tickled++;
}

/* Only in the name of an address that this board has. */
static bool is_held(const struct holder *h, const struct ip *ip)
{
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++)
		if (h->berths[i].used && h->berths[i].state == BERTH_HELD &&
		    ip_equal(&h->berths[i].ip, ip))
			return true;
	return false;
}

static void tickle_step(struct holder *h, uint64_t now)
{
	struct tickle_queue *q = &h->queue;

	if (q->count == 0 || now < q->not_before_ms)
		return;
	for (unsigned i = 0; i < TICKLES_PER_TURN && q->next < q->count; i++, q->next++)
		if (is_held(h, &q->ends[q->next].local))
			tickle_send(h, &q->ends[q->next]);
	if (q->next < q->count)
		return;
	q->next = 0;
	q->not_before_ms = now + TICKLE_AGAIN_MS;
	if (++q->round < TICKLE_ROUNDS)
		return;
	free(q->ends);
	*q = (struct tickle_queue){0};
}

static void holder_timer(uv_timer_t *timer);

/* Soon while something is on its way, and never later than the lease's end. */
static void turn_plan(struct holder *h, uint64_t now)
{
	uint64_t wait = h->queue.count != 0 ? TURN_MS : LOOK_MS;

	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++) {
		const struct berth *b = &h->berths[i];

		if (!b->used)
			continue;
		if (b->state == BERTH_PROBING || b->state == BERTH_LEAVING ||
		    (b->state == BERTH_HELD && b->announcements < ANNOUNCEMENTS))
			wait = TURN_MS;
		else if (wait > REFRESH_MS)
			wait = REFRESH_MS;
	}
	if (h->serial != 0 && h->lease_ms != 0 && h->lease_ms - now < wait)
		wait = h->lease_ms > now ? h->lease_ms - now : 1;
	uv_timer_start(&h->timer, holder_timer, wait, 0);
}

static bool retire_step(struct holder *h)
{
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++)
		if (h->berths[i].used)
			return false;
	return h->retiring;
}

static void holder_turn(struct holder *h)
{
	uint64_t now = clock_boottime_ms();
	bool refresh = now >= h->refresh_ms;
	bool gone;

	if (!h->begun || h->stopping)
		return;
	lease_look(h, now);
	interfaces_look(h, now);
	if (h->serial == 0)
		problem_find(h);
	if (refresh)
		h->refresh_ms = now + REFRESH_MS;
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++)
		if (h->berths[i].used)
			berth_step(h, &h->berths[i], refresh, now);
	/* Whatever the kernel has kept us waiting for: not past the lease. */
	now = clock_boottime_ms();
	lease_look(h, now);
	tickle_step(h, now);
	gone = retire_step(h);
	if (h->dirty)
		report_send(h);
	if (gone)
		uv_sem_post(&h->retired);
	turn_plan(h, now);
}

static void holder_timer(uv_timer_t *timer)
{
	holder_turn(timer->data);
}

/* --- letters --- */

enum holder_job { JOB_BEGIN, JOB_HOLD, JOB_TICKLE, JOB_RETIRE, JOB_STOP };

struct holder_letter {
	struct letter letter;
	struct holder *holder;
	enum holder_job job;
	struct holder_upcalls up;
	uint64_t number;
	uint64_t until_ms; /* of the order: the end of the lease that it came under */
	Tb__PeerAddressOrder *order;
	struct roll_ends *ends;
	size_t count;
};

static struct berth *berth_find(struct holder *h, const struct ip *ip)
{
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++)
		if (h->berths[i].used && ip_equal(&h->berths[i].ip, ip))
			return &h->berths[i];
	return NULL;
}

static void berth_leave(struct holder *h, struct berth *b, uint64_t now)
{
	if (b->state == BERTH_LEAVING)
		return;
	if (b->state != BERTH_HELD) {
		berth_drop(h, b, now);
		return;
	}
	h->up.leaving(h->up.arg, &b->ip);
	berth_move(h, b, BERTH_LEAVING, now);
}

static void berth_order(struct holder *h, const Tb__ServiceAddress *wanted, uint64_t now)
{
	struct berth *b = NULL;
	struct ip ip;

	if (ip_parse(wanted->address, &ip) != 0 || strlen(wanted->interface) > LIMIT_INTERFACE)
		return;
	b = berth_find(h, &ip);
	if (b != NULL &&
	    (b->prefix != wanted->prefix || strcmp(b->interface, wanted->interface) != 0 ||
	     b->state == BERTH_LEAVING)) {
		berth_drop(h, b, now);
		if (b->used)
			return; /* the next order finds it gone */
		b = NULL;
	}
	for (unsigned i = 0; b == NULL && i < 2 * LIMIT_ADDRESSES; i++) {
		if (h->berths[i].used)
			continue;
		b = &h->berths[i];
		*b = (struct berth){
			.used = true, .ip = ip, .prefix = wanted->prefix, .probe_fd = -1};
		snprintf(b->interface, sizeof(b->interface), "%s", wanted->interface);
		ip_format(&ip, b->text);
		probe_begin(h, b, now);
	}
}

static bool order_has(const Tb__PeerAddressOrder *order, const struct berth *b)
{
	for (size_t i = 0; i < order->n_hold; i++)
		if (strcmp(order->hold[i]->address, b->text) == 0)
			return true;
	return false;
}

static void do_hold(struct holder *h, const Tb__PeerAddressOrder *order, uint64_t until_ms)
{
	uint64_t now = clock_boottime_ms();

	lease_look(h, now);
	/* The leader hears what has become of it. */
	h->dirty = true;
	/* An order is good for the lease that it came under, and what follows on that without a
	 * gap: it may have lain here for long. */
	if (order->serial == 0 || h->lease_ms == 0 || now >= until_ms) {
		h->serial = 0;
		berths_drop_all(h, now);
		return;
	}
	h->serial = order->serial;
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++)
		if (h->berths[i].used && !order_has(order, &h->berths[i]))
			berth_leave(h, &h->berths[i], now);
	h->look_ms = 0;
	interfaces_look(h, now);
	for (size_t i = 0; i < order->n_hold && i < LIMIT_ADDRESSES && !h->retiring; i++)
		berth_order(h, order->hold[i], now);
}

static void do_tickle(struct holder *h, const struct roll_ends *ends, size_t count)
{
	struct tickle_queue *q = &h->queue;

	if (q->count + count > TICKLES_MAX)
		count = TICKLES_MAX - q->count;
	if (!h->tickle || count == 0)
		return;
	q->ends = mem_realloc(q->ends, (q->count + count) * sizeof(*ends));
	memcpy(q->ends + q->count, ends, count * sizeof(*ends));
	q->count += count;
	q->round = 0;
	q->not_before_ms = 0;
}

static void do_retire(struct holder *h)
{
	uint64_t now = clock_boottime_ms();

	h->retiring = true;
	problem_find(h);
	for (unsigned i = 0; i < 2 * LIMIT_ADDRESSES; i++)
		if (h->berths[i].used)
			berth_leave(h, &h->berths[i], now);
	if (!h->begun)
		uv_sem_post(&h->retired);
}

static void holder_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void do_stop(struct holder *h)
{
	h->stopping = true;
	berths_drop_all(h, clock_boottime_ms());
	uv_close((uv_handle_t *)&h->timer, holder_closed);
	mailbox_close(&h->mailbox, NULL);
}

static void holder_open(struct letter *letter)
{
	struct holder_letter *l = list_entry(letter, struct holder_letter, letter);
	struct holder *h = l->holder;

	switch (l->job) {
	case JOB_BEGIN:
		h->up = l->up;
		h->begun = true;
		h->dirty = true;
		break;
	case JOB_HOLD:
		h->letter = l->number;
		if (h->begun && !h->stopping)
			do_hold(h, l->order, l->until_ms);
		break;
	case JOB_TICKLE:
		do_tickle(h, l->ends, l->count);
		break;
	case JOB_RETIRE:
		do_retire(h);
		break;
	case JOB_STOP:
		do_stop(h);
		break;
	}
	if (l->order != NULL)
		tb__peer_address_order__free_unpacked(l->order, NULL);
	free(l->ends);
	free(l);
	holder_turn(h);
}

static void holder_post(struct holder *h, struct holder_letter *l, enum holder_job job)
{
	l->letter.open = holder_open;
	l->holder = h;
	l->job = job;
	if (mailbox_answer(&h->mailbox, &l->letter) == 0)
		return;
	if (l->order != NULL)
		tb__peer_address_order__free_unpacked(l->order, NULL);
	free(l->ends);
	free(l);
}

void holder_begin(struct holder *h, const struct holder_upcalls *upcalls)
{
	struct holder_letter *l = mem_zalloc(sizeof(*l));

	l->up = *upcalls;
	holder_post(h, l, JOB_BEGIN);
}

void holder_hold(struct holder *h, uint64_t letter, const Tb__PeerAddressOrder *order,
		 uint64_t until_ms)
{
	struct holder_letter *l = mem_zalloc(sizeof(*l));

	l->number = letter;
	l->until_ms = until_ms;
	l->order = (Tb__PeerAddressOrder *)message_copy(&order->base);
	holder_post(h, l, JOB_HOLD);
}

void holder_tickle(struct holder *h, struct roll_ends *ends, size_t count)
{
	struct holder_letter *l = mem_zalloc(sizeof(*l));

	l->ends = ends;
	l->count = count;
	holder_post(h, l, JOB_TICKLE);
}

/* --- start and stop --- */

struct leftovers {
	struct link_address items[2 * LIMIT_ADDRESSES];
	unsigned count;
};

static void leftover_visit(void *arg, const struct link_address *address)
{
	struct leftovers *left = arg;

	if (address->ours && left->count < 2 * LIMIT_ADDRESSES)
		left->items[left->count++] = *address;
}

static void leftovers_remove(struct links *l)
{
	struct leftovers left = {.count = 0};

	if (links_addresses(l, leftover_visit, &left) != 0)
		return;
	for (unsigned i = 0; i < left.count; i++) {
		const struct link_address *a = &left.items[i];
		char text[IP_TEXT];
		int rv = links_address_remove(l, a->index, &a->ip, a->prefix);

		ip_format(&a->ip, text);
		if (rv == 0)
			log_notice("address-leftover",
				   "%s, left by a witnessd that was killed, is "
				   "removed",
				   text);
	}
}

static void *holder_run(void *arg)
{
	struct holder *h = arg;

	uv_run(&h->loop, UV_RUN_DEFAULT);
	return NULL;
}

struct holder *holder_start(const struct holder_options *options)
{
	struct holder *h = mem_zalloc(sizeof(*h));
	int rv;

	h->sites_listen = mem_strdup(options->sites_listen);
	h->tickle = options->tickle;
	h->raw_fd[0] = h->raw_fd[1] = -1;
	if (links_open(&h->links) != 0)
		h->links = NULL;
	else
		leftovers_remove(h->links);
	uv_sem_init(&h->retired, 0);
	uv_loop_init(&h->loop);
	mailbox_init(&h->mailbox, &h->loop, LETTERS_MAX);
	uv_timer_init(&h->loop, &h->timer);
	h->timer.data = h;
	rv = pthread_create(&h->thread, NULL, holder_run, h);
	assert(rv == 0);
	return h;
}

void holder_retire(struct holder *h)
{
	holder_post(h, mem_zalloc(sizeof(struct holder_letter)), JOB_RETIRE);
	for (unsigned waited = 0; waited < RETIRE_MS; waited += 10) {
		if (uv_sem_trywait(&h->retired) == 0)
			return;
		usleep(10000);
	}
}

void holder_stop(struct holder *h)
{
	holder_post(h, mem_zalloc(sizeof(struct holder_letter)), JOB_STOP);
	pthread_join(h->thread, NULL);
}

void holder_free(struct holder *h)
{
	if (uv_loop_close(&h->loop) != 0)
		assert(!"a handle was left open");
	uv_sem_destroy(&h->retired);
	links_close(h->links);
	for (unsigned i = 0; i < 2; i++)
		if (h->raw_fd[i] >= 0)
			close(h->raw_fd[i]);
	free(h->queue.ends);
	free(h->sites_listen);
	free(h);
}

/* --- numbers --- */

void holder_stats(const struct holder *h, struct holder_stats *ret)
{
	*ret = (struct holder_stats){h->held, h->taken, h->conflicts, h->tickled};
}

static void sample(struct buf *out, bool open, enum metric_kind kind, const char *name,
		   const char *help, uint64_t value)
{
	metrics_head(out, open, kind, name, help);
	metrics_sample(out, open, kind, name, "", (double)value);
}

void holder_metrics(void *holder, bool open, struct buf *out)
{
	struct holder_stats s;

	holder_stats(holder, &s);
	sample(out, open, METRIC_GAUGE, "tiebreak_addresses_held",
	       "Service addresses that this board has.", s.held);
	sample(out, open, METRIC_COUNTER, "tiebreak_addresses_taken",
	       "Service addresses that this board took.", s.taken);
	sample(out, open, METRIC_COUNTER, "tiebreak_address_conflicts",
	       "Service addresses found with another machine.", s.conflicts);
	sample(out, open, METRIC_COUNTER, "tiebreak_clients_tickled",
	       "Packets to clients of dead boards, so that they come back at once.", s.tickled);
}
