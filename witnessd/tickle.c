#include "witnessd/tickle.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "witnessd/checksum.h"

enum { IP4_HEAD = 20, IP6_HEAD = 40, TCP_HEAD = 20, HOPS = 64 };

static void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void ip4_head(const struct roll_ends *ends, uint8_t *head)
{
	head[0] = 0x45;
	put16(head + 2, IP4_HEAD + TCP_HEAD);
	head[6] = 0x40; /* not to be cut in pieces */
	head[8] = HOPS;
	head[9] = IPPROTO_TCP;
	memcpy(head + 12, ends->local.bytes, 4);
	memcpy(head + 16, ends->remote.bytes, 4);
	put16(head + 10, checksum_of(head, IP4_HEAD));
}

static void ip6_head(const struct roll_ends *ends, uint8_t *head)
{
	head[0] = 0x60;
	put16(head + 4, TCP_HEAD);
	head[6] = IPPROTO_TCP;
	head[7] = HOPS;
	memcpy(head + 8, ends->local.bytes, 16);
	memcpy(head + 24, ends->remote.bytes, 16);
}

size_t tickle_packet(const struct roll_ends *ends, uint8_t bytes[TICKLE_BYTES])
{
	size_t head = ends->local.len == 4 ? IP4_HEAD : IP6_HEAD;
	uint8_t *tcp = bytes + head;

	memset(bytes, 0, TICKLE_BYTES);
	if (ends->local.len == 4)
		ip4_head(ends, bytes);
	else
		ip6_head(ends, bytes);
	put16(tcp, ends->local_port);
	put16(tcp + 2, ends->remote_port);
	/* Sequence and acknowledgement 0: one chance in 2^32 over the window that they fit, and
	 * then they say nothing new. */
	tcp[12] = (TCP_HEAD / 4) << 4;
	tcp[13] = TH_ACK;
	put16(tcp + 16,
	      checksum_of_segment(&ends->local, &ends->remote, IPPROTO_TCP, tcp, TCP_HEAD));
	return head + TCP_HEAD;
}
