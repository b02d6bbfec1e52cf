#include "hv/virtio/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/mem.h"

enum { RX, TX, CONTROL, QUEUES };
enum {
	QUEUE_SIZE = 256,
	HEADER = sizeof(struct virtio_net_hdr_v1),
	/* The largest segment that either side makes, with Ethernet and VLAN header. */
	FRAME_MAX = HEADER + 14 + 4 + 65535,
	FRAME_USUAL = HEADER + 1518,
	STOCK_CHAINS = 64,
	STOCK_BUFFERS = 256, /* holds a chain of the longest kind and then some */
	BATCH = 64, /* frames before other devices have their turn */
	CALM_AFTER = 64, /* usual frames in a row: no large one is expected any more */
	STALE_MAX = 4096, /* frames that wait in a tap at most */
};

/* A chain of the driver that waits for a frame; its buffers are in net.iov, in order. */
struct stocked {
	uint16_t head, buffers;
	uint32_t len;
};

/* Receiving. The tap does not tell how long its next frame is and cuts what does not fit. So
 * usually there is stock for one usual frame, and behind it `rest` for what is longer, which is
 * copied; as long as large frames come there is stock for the largest, and nothing is copied. */
struct receiver {
	struct stocked stock[STOCK_CHAINS];
	struct iovec iov[STOCK_BUFFERS + 1];
	unsigned chains, buffers; /* in use */
	uint64_t len; /* bytes of all chains */
	unsigned large; /* so many more frames may be large */
	uint8_t *rest; /* FRAME_MAX bytes; owned */
	/* A frame that was read and is not with the driver yet: too few buffers. 0: none. */
	uint32_t frame, in_stock; /* its bytes, and how many of them are in the stock already */
	bool starved; /* the driver kicks when it has more buffers */
};

struct counters {
	uint64_t rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped, announces;
};

struct net {
	struct virtio virtio; /* first */
	int fd; /* the caller's */
	struct watch watch; /* of fd; not watched once the tap is gone */
	uint32_t events; /* that the watch waits for */
	bool cable; /* as net_set_link says */
	bool tap_up; /* no for as long as the interface is down, or gone */
	bool tx_blocked; /* the tap takes no more for now */
	bool merges; /* the driver takes a frame in several chains */
	struct receiver rx;
	struct chain chain; /* scratch */
	struct counters counters;
};

static uint64_t bit(unsigned feature)
{
	return UINT64_C(1) << feature;
}

static struct net *net_of(struct virtio *v)
{
	return (struct net *)v;
}

static struct virtio_net_config *config_of(struct net *n)
{
	return (struct virtio_net_config *)(void *)n->virtio.config;
}

static bool link_up(const struct net *n)
{
	return n->cable && n->tap_up;
}

/* Waits for frames if there is somebody to give them to, and for room if there is not enough. */
static void watch_update(struct net *n)
{
	bool runs = n->virtio.active && !n->virtio.paused;
	uint32_t events = 0;

	if (runs && link_up(n) && !n->rx.starved) {
		events |= EPOLLIN;
	}
	if (runs && (n->tx_blocked || !n->tap_up)) {
		events |= EPOLLOUT;
	}
	if (n->watch.loop != NULL && events != n->events && loop_modify(&n->watch, events) == 0) {
		n->events = events;
	}
}

static void status_update(struct net *n, uint16_t clear, uint16_t set)
{
	struct virtio_net_config *config = config_of(n);
	uint16_t status = (uint16_t)((config->status & ~clear) | set);

	if (status != config->status) {
		config->status = status;
		virtio_config_changed(&n->virtio);
	}
}

static void link_update(struct net *n)
{
	status_update(n, VIRTIO_NET_S_LINK_UP, link_up(n) ? VIRTIO_NET_S_LINK_UP : 0);
	watch_update(n);
}

/* The interface was taken down (it comes back with EPOLLOUT), or away for good. */
static void tap_lost(struct net *n, bool for_good)
{
	if (for_good && n->watch.loop != NULL) {
		log_warning("tap-gone", "%s: its tap interface is gone; the guest's link is down",
			    n->virtio.name);
		loop_remove(&n->watch);
	}
	n->tap_up = false;
	link_update(n);
}

static void tap_back(struct net *n)
{
	if (!n->tap_up) {
		n->tap_up = true;
		link_update(n);
	}
}

static void tap_failed(struct net *n, int error)
{
	if (error == EIO) {
		tap_lost(n, false);
	} else if (error == EBADFD || error == ENODEV) {
		tap_lost(n, true);
	}
}

/* Frames that wait in the tap were meant for another life of the guest. */
static void drop_stale(struct net *n)
{
	unsigned i;

	for (i = 0; i < STALE_MAX && read(n->fd, n->rx.rest, FRAME_MAX) > 0; i++) {
	}
}

static void stock_clear(struct receiver *rx)
{
	rx->chains = rx->buffers = 0;
	rx->len = rx->frame = rx->in_stock = 0;
	rx->starved = false;
}

/* No more room, or nothing more to come. */
static bool stock_full(const struct net *n)
{
	const struct receiver *rx = &n->rx;

	return rx->chains == STOCK_CHAINS || rx->buffers > STOCK_BUFFERS - QUEUE_CHAIN_MAX ||
	       rx->chains >= n->virtio.queue[RX].size;
}

/* One more chain of the driver. False if there is none or it broke the rules. */
static bool stock_add(struct net *n)
{
	struct receiver *rx = &n->rx;
	struct chain *c = &n->chain;

	if (virtio_pop(&n->virtio, RX, c) == 0) {
		return false;
	}
	if (c->in_len < HEADER) {
		virtio_fail(&n->virtio, "a receive buffer too small for the header");
		return false;
	}
	memcpy(rx->iov + rx->buffers, c->iov + c->out_count, c->in_count * sizeof(*c->iov));
	rx->stock[rx->chains++] = (struct stocked){
		.head = c->head,
		.buffers = c->in_count,
		.len = c->in_len,
	};
	rx->buffers += c->in_count;
	rx->len += c->in_len;
	return true;
}

/* Stock for a frame of `len` bytes, or as much as there may be (without merging one chain). False:
 * the driver has to give more.
 */
static bool stock_fill(struct net *n, uint64_t len)
{
	while (n->merges ? n->rx.len < len && !stock_full(n) : n->rx.chains == 0) {
		if (!stock_add(n)) {
			return false;
		}
	}
	return true;
}

/* Drops the first `chains` chains. */
static void stock_drop(struct receiver *rx, unsigned chains)
{
	unsigned buffers = 0, i;

	for (i = 0; i < chains; i++) {
		buffers += rx->stock[i].buffers;
		rx->len -= rx->stock[i].len;
	}
	rx->chains -= chains;
	rx->buffers -= buffers;
	memmove(rx->stock, rx->stock + chains, rx->chains * sizeof(rx->stock[0]));
	memmove(rx->iov, rx->iov + buffers, rx->buffers * sizeof(rx->iov[0]));
}

/* Copies to byte `offset` of the stock on; there is room. */
static void stock_write(struct receiver *rx, size_t offset, const void *from, size_t len)
{
	const struct iovec *iov = rx->iov;

	if (len == 0) {
		return;
	}
	for (; offset >= iov->iov_len; iov++) {
		offset -= iov->iov_len;
	}
	while (len > 0) {
		size_t part = iov->iov_len - offset < len ? iov->iov_len - offset : len;

		memcpy((uint8_t *)iov->iov_base + offset, from, part);
		from = (const uint8_t *)from + part;
		len -= part;
		offset = 0;
		iov++;
	}
}

/* The frame is in the stock: its chains go to the driver, all at once. */
static void stock_push(struct net *n)
{
	struct receiver *rx = &n->rx;
	struct queue *q = &n->virtio.queue[RX];
	uint32_t left = rx->frame;
	uint16_t chains = 0;

	while (left > rx->stock[chains].len) {
		queue_put(q, rx->stock[chains].head, rx->stock[chains].len);
		left -= rx->stock[chains++].len;
	}
	chains++;
	stock_write(rx, offsetof(struct virtio_net_hdr_v1, num_buffers), &chains, sizeof(chains));
	queue_push(q, rx->stock[chains - 1].head, left);
	n->counters.rx_frames++;
	n->counters.rx_bytes += rx->frame - HEADER;
	stock_drop(rx, chains);
}

/* Gives the frame that was read to the driver. False if it has to wait for buffers. */
static bool deliver(struct net *n)
{
	struct receiver *rx = &n->rx;
	bool filled = stock_fill(n, rx->frame);

	if (rx->frame > rx->len && !filled) {
		return false;
	}
	if (rx->frame > rx->len) {
		/* Larger than anything this driver gives. */
		n->counters.rx_dropped++;
	} else {
		stock_write(rx, rx->in_stock, rx->rest, rx->frame - rx->in_stock);
		stock_push(n);
	}
	rx->frame = 0;
	return true;
}

/* Reads the next frame: 1; 0: none, or not now; -EAGAIN: no buffers. */
static int take(struct net *n)
{
	struct receiver *rx = &n->rx;
	uint64_t room;
	ssize_t got;

	if (!stock_fill(n, rx->large > 0 ? FRAME_MAX : FRAME_USUAL) &&
	    (!n->virtio.active || rx->len < FRAME_USUAL)) {
		return -EAGAIN;
	}
	room = rx->len;
	rx->iov[rx->buffers] = (struct iovec){.iov_base = rx->rest, .iov_len = FRAME_MAX};
	got = readv(n->fd, rx->iov, (int)(room < FRAME_MAX ? rx->buffers + 1 : rx->buffers));
	if (got < HEADER) {
		if (got < 0) {
			tap_failed(n, errno);
		}
		return 0;
	}
	rx->frame = (uint32_t)got;
	rx->in_stock = (uint32_t)((uint64_t)got < room ? (uint64_t)got : room);
	if (got > FRAME_USUAL) {
		rx->large = CALM_AFTER;
	} else if (rx->large > 0) {
		rx->large--;
	}
	return 1;
}

/* The driver has no more buffers for now. True if it has after all. */
static bool starve(struct net *n)
{
	n->rx.starved = n->virtio.active && !queue_want_kick(&n->virtio.queue[RX]);
	return n->virtio.active && !n->rx.starved;
}

static void receive(struct net *n)
{
	struct receiver *rx = &n->rx;
	unsigned i;

	rx->starved = false;
	for (i = 0; i < BATCH && n->virtio.active; i++) {
		int rv = rx->frame > 0 ? 1 : take(n);

		if (rv == 0) {
			break;
		}
		if ((rv < 0 || !deliver(n)) && !starve(n)) {
			break;
		}
	}
	virtio_signal(&n->virtio, RX);
	watch_update(n);
}

static int tap_write(const struct net *n, const struct chain *c)
{
	if (!n->cable || n->watch.loop == NULL) {
		return -ENETDOWN;
	}
	if (c->out_len > FRAME_MAX) {
		return -EMSGSIZE;
	}
	return writev(n->fd, c->iov, c->out_count) < 0 ? -errno : 0;
}

/* True if the chain is done with, whatever became of the frame; false if the tap is full. */
static bool send_frame(struct net *n, const struct chain *c)
{
	int rv = tap_write(n, c);

	if (rv == -EAGAIN) {
		return false;
	}
	if (rv < 0) {
		n->counters.tx_dropped++;
		tap_failed(n, -rv);
		return true;
	}
	n->counters.tx_frames++;
	n->counters.tx_bytes += c->out_len - HEADER;
	tap_back(n);
	return true;
}

static void transmit(struct net *n)
{
	struct queue *q = &n->virtio.queue[TX];
	struct chain *c = &n->chain;
	unsigned i;

	queue_spare_kick(q);
	for (i = 0; i < BATCH; i++) {
		if (virtio_pop(&n->virtio, TX, c) == 0) {
			if (!n->virtio.active || !queue_want_kick(q)) {
				break;
			}
			continue;
		}
		if (c->out_len < HEADER) {
			virtio_fail(&n->virtio, "a frame without header");
			break;
		}
		if (!send_frame(n, c)) {
			queue_unpop(q);
			n->tx_blocked = true;
			watch_update(n);
			break;
		}
		queue_push(q, c->head, 0);
	}
	virtio_signal(&n->virtio, TX);
	if (i == BATCH) {
		virtio_kick(&n->virtio, TX);
	}
}

/* The only command (5.1.6.5.4): the driver has announced itself. */
static uint8_t obey(struct net *n, const struct chain *c)
{
	struct virtio_net_ctrl_hdr h;

	if (chain_read(c, 0, &h, sizeof(h)) < sizeof(h) || h.class != VIRTIO_NET_CTRL_ANNOUNCE ||
	    h.cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK) {
		return VIRTIO_NET_ERR;
	}
	status_update(n, VIRTIO_NET_S_ANNOUNCE, 0);
	return VIRTIO_NET_OK;
}

static void control(struct net *n)
{
	struct queue *q = &n->virtio.queue[CONTROL];
	struct chain *c = &n->chain;
	unsigned i;

	for (i = 0; i < BATCH; i++) {
		uint8_t ack;

		if (virtio_pop(&n->virtio, CONTROL, c) == 0) {
			if (!n->virtio.active || !queue_want_kick(q)) {
				break;
			}
			continue;
		}
		if (c->in_len == 0) {
			virtio_fail(&n->virtio, "a command without room for an answer");
			break;
		}
		ack = obey(n, c);
		queue_push(q, c->head, (uint32_t)chain_write(c, 0, &ack, sizeof(ack)));
	}
	virtio_signal(&n->virtio, CONTROL);
	if (i == BATCH) {
		virtio_kick(&n->virtio, CONTROL);
	}
}

static void net_kick(struct virtio *v, unsigned index)
{
	struct net *n = net_of(v);

	if (index == RX && n->rx.starved) {
		receive(n);
	} else if (index == TX && !n->tx_blocked) {
		transmit(n);
	} else if (index == CONTROL) {
		control(n);
	}
}

static void tap_ready(struct watch *watch, uint32_t events)
{
	struct net *n = (struct net *)(void *)((char *)watch - offsetof(struct net, watch));

	if (events & (EPOLLERR | EPOLLHUP)) {
		tap_lost(n, true);
		return;
	}
	if ((events & EPOLLOUT) && !n->virtio.paused) {
		tap_back(n);
		if (n->tx_blocked) {
			n->tx_blocked = false;
			transmit(n);
		}
	}
	if ((events & EPOLLIN) && n->virtio.active && !n->virtio.paused) {
		receive(n);
	}
	watch_update(n);
}

/* What the kernel may leave to the guest of the frames it gives us (linux/if_tun.h). */
static unsigned long offload(const struct net *n)
{
	static const struct {
		unsigned feature;
		unsigned long flag;
	} pairs[] = {
		{VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
		{VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
		{VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
	};
	unsigned long flags = TUN_F_CSUM;
	unsigned i;

	if (!virtio_has(&n->virtio, bit(VIRTIO_NET_F_GUEST_CSUM))) {
		return 0;
	}
	for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		flags |= virtio_has(&n->virtio, bit(pairs[i].feature)) ? pairs[i].flag : 0;
	}
	/* ECN is a property of the other two. */
	return flags & (TUN_F_TSO4 | TUN_F_TSO6) ? flags : TUN_F_CSUM;
}

static void net_activate(struct virtio *v)
{
	struct net *n = net_of(v);

	n->merges = virtio_has(v, bit(VIRTIO_NET_F_MRG_RXBUF));
	(void)ioctl(n->fd, TUNSETOFFLOAD, offload(n));
	drop_stale(n);
	watch_update(n);
}

static void net_reset(struct virtio *v)
{
	struct net *n = net_of(v);

	stock_clear(&n->rx);
	n->tx_blocked = false;
	config_of(n)->status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
	(void)ioctl(n->fd, TUNSETOFFLOAD, 0);
	watch_update(n);
}

/* The driver's buffers are its own again; a frame that waits for more of them is lost. */
static void net_pause(struct virtio *v)
{
	struct net *n = net_of(v);

	n->counters.rx_dropped += n->rx.frame > 0;
	for (; n->rx.chains > 0; n->rx.chains--) {
		queue_unpop(&v->queue[RX]);
	}
	stock_clear(&n->rx);
	watch_update(n);
}

static void net_resume(struct virtio *v)
{
	watch_update(net_of(v));
}

static const struct virtio_class net_class = {
	.id = VIRTIO_ID_NET,
	.name = "net",
	.queues = QUEUES,
	.queue_size = QUEUE_SIZE,
	.activate = net_activate,
	.kick = net_kick,
	.reset = net_reset,
	.pause = net_pause,
	.resume = net_resume,
};

/* Is this a tap as we need it? Then headers are ours. */
static int tap_prepare(int fd, const char *name, struct fault *f)
{
	const int wanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, header = HEADER;
	struct ifreq r = {0};
	int flags;

	if (ioctl(fd, TUNGETIFF, &r) < 0) {
		return fault_set(f, -EINVAL, "%s: the descriptor is not a tap interface: %s", name,
				 strerror(errno));
	}
	if ((r.ifr_flags & wanted) != wanted) {
		return fault_set(f, -EINVAL,
				 "%s: %s was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR",
				 name, r.ifr_name);
	}
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 || ioctl(fd, TUNSETOFFLOAD, 0) < 0) {
		return fault_set(f, -errno, "%s: cannot set up %s: %s", name, r.ifr_name,
				 strerror(errno));
	}
	return 0;
}

/* Configuration (5.1.4) and features (5.1.3). */
static void describe(struct net *n, const uint8_t mac[6])
{
	static const unsigned features[] = {
		VIRTIO_NET_F_CSUM,	     VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MAC,
		VIRTIO_NET_F_GUEST_TSO4,     VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN,
		VIRTIO_NET_F_HOST_TSO4,	     VIRTIO_NET_F_HOST_TSO6,  VIRTIO_NET_F_HOST_ECN,
		VIRTIO_NET_F_MRG_RXBUF,	     VIRTIO_NET_F_STATUS,     VIRTIO_NET_F_CTRL_VQ,
		VIRTIO_NET_F_GUEST_ANNOUNCE,
	};
	unsigned i;

	for (i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		n->virtio.features |= bit(features[i]);
	}
	memcpy(config_of(n)->mac, mac, sizeof(config_of(n)->mac));
	config_of(n)->status = VIRTIO_NET_S_LINK_UP;
	n->virtio.config_len = offsetof(struct virtio_net_config, max_virtqueue_pairs);
}

int net_create(const struct net_config *c, const struct ram *ram, struct loop *loop,
	       const char *name, struct net **ret, struct fault *f)
{
	struct net *n = mem_zalloc(sizeof(*n));
	int rv = tap_prepare(c->fd, name, f);

	n->fd = c->fd;
	n->cable = n->tap_up = true;
	n->rx.rest = mem_alloc(FRAME_MAX);
	n->watch.ready = tap_ready;
	describe(n, c->mac);
	if (rv == 0) {
		rv = virtio_init(&n->virtio, &net_class, ram, loop, name);
		rv = rv < 0 ? rv : loop_add(loop, &n->watch, c->fd, 0);
		if (rv < 0) {
			(void)fault_set(f, rv, "%s: cannot watch the tap: %s", name, strerror(-rv));
		}
	}
	if (rv < 0) {
		net_destroy(n);
		return rv;
	}
	*ret = n;
	return 0;
}

void net_destroy(struct net *n)
{
	if (n == NULL) {
		return;
	}
	loop_remove(&n->watch);
	virtio_close(&n->virtio);
	free(n->rx.rest);
	free(n);
}

struct virtio *net_virtio(struct net *n)
{
	return &n->virtio;
}

void net_set_link(struct net *n, bool up)
{
	if (up && !n->cable) {
		drop_stale(n);
	}
	n->cable = up;
	link_update(n);
}

void net_announce(struct net *n)
{
	if (virtio_has(&n->virtio, bit(VIRTIO_NET_F_GUEST_ANNOUNCE))) {
		n->counters.announces++;
		status_update(n, 0, VIRTIO_NET_S_ANNOUNCE);
	}
}

void net_stats(const struct net *n, const struct stats_sink *s)
{
	const struct counters *c = &n->counters;
	const char *part = n->virtio.name;

	virtio_stats(&n->virtio, s);
	s->add(s->arg, part, "rx-frames", c->rx_frames, false);
	s->add(s->arg, part, "rx-bytes", c->rx_bytes, false);
	s->add(s->arg, part, "rx-dropped", c->rx_dropped, false);
	s->add(s->arg, part, "tx-frames", c->tx_frames, false);
	s->add(s->arg, part, "tx-bytes", c->tx_bytes, false);
	s->add(s->arg, part, "tx-dropped", c->tx_dropped, false);
	s->add(s->arg, part, "announces", c->announces, false);
	s->add(s->arg, part, "link", link_up(n), true);
}
