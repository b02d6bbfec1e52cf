#include "agent/beacon.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/address.h"
#include "lib/mem.h"
#include "proto/agent.pb-c.h"
#include "proto/frame.h"

struct peer {
	uint32_t node;
	struct address address;
	bool known;
	uint64_t heard_ms; /* 0: never */
};

struct beacon {
	char *site;
	int fd;
	uint64_t due_ms;
	struct peer peers[WITNESS_AGENT_NODES];
	unsigned count;
	uint8_t packet[BEACON_BYTES];
	size_t packet_len;
};

static int node_order(const void *a, const void *b)
{
	uint32_t x = ((const struct peer *)a)->node;
	uint32_t y = ((const struct peer *)b)->node;

	return x < y ? -1 : x > y;
}

/* Once, at the start, before anything is held: it may take long. */
static bool look_up(struct address *a)
{
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
	struct addrinfo *found;
	char port[8];

	if (a->kind != ADDRESS_NAME)
		return true;
	snprintf(port, sizeof(port), "%u", a->port);
	if (getaddrinfo(a->host, port, &hints, &found) != 0)
		return false;
	memcpy(&a->socket, found->ai_addr, found->ai_addrlen);
	a->socket_len = found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

static int socket_bind(const char *listen, char **ret_message)
{
	struct address a;
	int off = 0;
	int fd;
	int rv;

	if (address_parse(listen, &a) != 0)
		return -EINVAL;
	fd = socket(a.socket.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 && a.kind == ADDRESS_ANY && errno == EAFNOSUPPORT) {
		a.socket.in =
			(struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(a.port)};
		a.socket_len = sizeof(a.socket.in);
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	}
	if (fd >= 0 && a.socket.any.sa_family == AF_INET6 && a.kind == ADDRESS_ANY)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (fd >= 0 && bind(fd, &a.socket.any, a.socket_len) == 0)
		return fd;
	rv = -errno;
	*ret_message = mem_printf("listen: cannot use %s for beacons of the peers: %s", listen,
				  strerror(-rv));
	if (fd >= 0)
		close(fd);
	return rv;
}

static void packet_make(struct beacon *b, uint32_t node)
{
	Tb__AgentBeacon beacon = TB__AGENT_BEACON__INIT;

	beacon.site = b->site;
	beacon.node = node;
	if (tb__agent_beacon__get_packed_size(&beacon) <= sizeof(b->packet))
		b->packet_len = tb__agent_beacon__pack(&beacon, b->packet);
}

int beacon_open(const struct settings *s, uint64_t now_ms, struct beacon **ret, char **ret_message)
{
	struct beacon *b = mem_zalloc(sizeof(*b));

	for (unsigned i = 0; i < s->peer_count; i++) {
		struct peer *p = &b->peers[b->count];

		if (s->peers[i].address == NULL ||
		    address_parse(s->peers[i].address, &p->address) != 0)
			continue;
		p->node = s->peers[i].node;
		p->known = look_up(&p->address);
		b->count++;
	}
	*ret = NULL;
	if (b->count == 0) {
		free(b);
		return 0;
	}
	qsort(b->peers, b->count, sizeof(b->peers[0]), node_order);
	b->fd = socket_bind(s->listen, ret_message);
	if (b->fd < 0) {
		int rv = b->fd;

		free(b);
		return rv;
	}
	b->site = mem_strdup(s->site);
	b->due_ms = now_ms;
	packet_make(b, s->node);
	*ret = b;
	return 0;
}

void beacon_close(struct beacon *b)
{
	if (b == NULL)
		return;
	close(b->fd);
	free(b->site);
	free(b);
}

int beacon_fd(const struct beacon *b)
{
	return b != NULL ? b->fd : -1;
}

uint64_t beacon_due(const struct beacon *b)
{
	return b != NULL ? b->due_ms : UINT64_MAX;
}

/* The same host, whatever the port; IPv4 may come inside IPv6. */
static bool same_host(const struct sockaddr *from, const struct address *peer)
{
	char one[ADDRESS_TEXT], two[ADDRESS_TEXT];
	char *colon;

	address_format(from, one);
	address_format(&peer->socket.any, two);
	colon = strrchr(one, ':');
	if (colon != NULL)
		*colon = '\0';
	colon = strrchr(two, ':');
	if (colon != NULL)
		*colon = '\0';
	return strcmp(one, two) == 0;
}

uint32_t beacon_parse(const uint8_t *data, size_t len, const char *site)
{
	ProtobufCMessage *message;
	const Tb__AgentBeacon *beacon;
	uint32_t node;

	if (len > BEACON_BYTES || frame_unpack(&tb__agent_beacon__descriptor, data, len,
					       FRAME_MEMORY(BEACON_BYTES), &message) != 0)
		return 0;
	beacon = (const Tb__AgentBeacon *)message;
	node = strcmp(beacon->site, site) == 0 ? beacon->node : 0;
	protobuf_c_message_free_unpacked(message, NULL);
	return node;
}

static void beacon_read(struct beacon *b, uint64_t now_ms)
{
	/* A flood is not to keep the lease waiting. */
	for (unsigned packets = 0; packets < 2 * WITNESS_AGENT_NODES; packets++) {
		struct sockaddr_storage from = {0};
		socklen_t from_len = sizeof(from);
		uint8_t data[BEACON_BYTES + 1];
		ssize_t len =
			recvfrom(b->fd, data, sizeof(data), 0, (struct sockaddr *)&from, &from_len);
		uint32_t node;

		if (len < 0)
			return;
		node = beacon_parse(data, (size_t)len, b->site);
		for (unsigned i = 0; node != 0 && i < b->count; i++) {
			struct peer *p = &b->peers[i];

			if (p->node == node && p->known &&
			    same_host((struct sockaddr *)&from, &p->address))
				p->heard_ms = now_ms;
		}
	}
}

/* On a socket for both families an IPv4 address is written as IPv6. */
static void beacon_send(struct beacon *b, const struct peer *p)
{
	struct sockaddr_storage own = {0};
	socklen_t own_len = sizeof(own);
	struct sockaddr_in6 mapped = {.sin6_family = AF_INET6};

	if (!p->known || getsockname(b->fd, (struct sockaddr *)&own, &own_len) != 0)
		return;
	if (own.ss_family == AF_INET6 && p->address.socket.any.sa_family == AF_INET) {
		mapped.sin6_port = p->address.socket.in.sin_port;
		mapped.sin6_addr.s6_addr[10] = 0xff;
		mapped.sin6_addr.s6_addr[11] = 0xff;
		memcpy(&mapped.sin6_addr.s6_addr[12], &p->address.socket.in.sin_addr, 4);
		sendto(b->fd, b->packet, b->packet_len, MSG_NOSIGNAL, (struct sockaddr *)&mapped,
		       sizeof(mapped));
		return;
	}
	/* A peer that cannot be reached is what this is to find out. */
	sendto(b->fd, b->packet, b->packet_len, MSG_NOSIGNAL, &p->address.socket.any,
	       p->address.socket_len);
}

void beacon_turn(struct beacon *b, uint64_t now_ms)
{
	if (b == NULL)
		return;
	beacon_read(b, now_ms);
	if (now_ms < b->due_ms)
		return;
	for (unsigned i = 0; i < b->count; i++)
		beacon_send(b, &b->peers[i]);
	b->due_ms = now_ms + BEACON_EVERY_MS;
}

size_t beacon_seen(const struct beacon *b, uint64_t now_ms, uint32_t nodes[WITNESS_AGENT_NODES])
{
	size_t count = 0;

	for (unsigned i = 0; b != NULL && i < b->count; i++) {
		const struct peer *p = &b->peers[i];

		if (p->heard_ms != 0 && now_ms < p->heard_ms + BEACON_SEEN_MS)
			nodes[count++] = p->node;
	}
	return count;
}
