#include "witnessd/neighbour.h"

#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <string.h>

#include "witnessd/checksum.h"

enum {
	ARP_BYTES = 28,
	IP6_HEAD = 40,
	ND_BYTES = 24, /* of a solicitation or an advertisement without options */
	ND_HOPS = 255, /* RFC 4861: comes from this very network */
	OPTION_BYTES = 8, /* a link-layer address of Ethernet */
};

static uint8_t *put16(uint8_t *at, unsigned value)
{
	*at++ = (uint8_t)(value >> 8);
	*at++ = (uint8_t)value;
	return at;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t len)
{
	memcpy(at, bytes, len);
	return at + len;
}

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

/* --- ARP --- */

static void arp(unsigned op, const uint8_t sender[4], const uint8_t mac[NEIGHBOUR_MAC],
		const uint8_t target[4], struct neighbour_packet *ret)
{
	static const uint8_t nobody[NEIGHBOUR_MAC] = {0};
	uint8_t *at = ret->bytes;

	*ret = (struct neighbour_packet){.protocol = ETHERTYPE_ARP, .len = ARP_BYTES};
	memset(ret->to, 0xff, sizeof(ret->to));
	at = put16(at, ARPHRD_ETHER);
	at = put16(at, ETHERTYPE_IP);
	*at++ = NEIGHBOUR_MAC;
	*at++ = 4;
	at = put16(at, op);
	at = put(at, mac, NEIGHBOUR_MAC);
	at = put(at, sender, 4);
	at = put(at, op == ARPOP_REPLY ? mac : nobody, NEIGHBOUR_MAC);
	put(at, target, 4);
}

static bool arp_claims(const uint8_t *bytes, size_t len, const struct ip *ip,
		       uint8_t ret_mac[NEIGHBOUR_MAC])
{
	if (len < ARP_BYTES || get16(bytes) != ARPHRD_ETHER || get16(bytes + 2) != ETHERTYPE_IP ||
	    bytes[4] != NEIGHBOUR_MAC || bytes[5] != 4)
		return false;
	if (memcmp(bytes + 14, ip->bytes, 4) != 0)
		return false;
	memcpy(ret_mac, bytes + 8, NEIGHBOUR_MAC);
	return true;
}

/* --- Neighbour Discovery --- */

static void nd_head(struct neighbour_packet *p, const uint8_t from[16], const uint8_t to[16],
		    size_t payload)
{
	uint8_t *at = p->bytes;

	p->protocol = ETHERTYPE_IPV6;
	p->len = IP6_HEAD + payload;
	*at++ = 0x60;
	at += 3;
	at = put16(at, (unsigned)payload);
	*at++ = IPPROTO_ICMPV6;
	*at++ = ND_HOPS;
	at = put(at, from, 16);
	put(at, to, 16);
	/* RFC 2464, 7: multicast on Ethernet. */
	p->to[0] = p->to[1] = 0x33;
	memcpy(p->to + 2, to + 12, 4);
}

static void nd_seal(struct neighbour_packet *p)
{
	uint8_t *icmp = p->bytes + IP6_HEAD;
	size_t len = p->len - IP6_HEAD;
	struct ip from = ip_of_bytes(p->bytes + 8, 16);
	struct ip to = ip_of_bytes(p->bytes + 24, 16);

	put16(icmp + 2, checksum_of_segment(&from, &to, IPPROTO_ICMPV6, icmp, len));
}

static void nd_probe(const struct ip *ip, struct neighbour_packet *ret)
{
	static const uint8_t nobody[16] = {0};
	uint8_t to[16] = {0xff, 2, [11] = 1, [12] = 0xff};
	uint8_t *icmp = ret->bytes + IP6_HEAD;

	memcpy(to + 13, ip->bytes + 13, 3);
	*ret = (struct neighbour_packet){0};
	nd_head(ret, nobody, to, ND_BYTES);
	icmp[0] = ND_NEIGHBOR_SOLICIT;
	memcpy(icmp + 8, ip->bytes, 16);
	nd_seal(ret);
}

static void nd_announce(const struct ip *ip, const uint8_t mac[NEIGHBOUR_MAC],
			struct neighbour_packet *ret)
{
	static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1};
	uint8_t *icmp = ret->bytes + IP6_HEAD;

	*ret = (struct neighbour_packet){0};
	nd_head(ret, ip->bytes, all_nodes, ND_BYTES + OPTION_BYTES);
	icmp[0] = ND_NEIGHBOR_ADVERT;
	icmp[4] = 0x20; /* override what is remembered */
	memcpy(icmp + 8, ip->bytes, 16);
	icmp[24] = ND_OPT_TARGET_LINKADDR;
	icmp[25] = 1;
	memcpy(icmp + 26, mac, NEIGHBOUR_MAC);
	nd_seal(ret);
}

static bool nd_claims(const uint8_t *bytes, size_t len, const struct ip *ip,
		      uint8_t ret_mac[NEIGHBOUR_MAC])
{
	const uint8_t *icmp = bytes + IP6_HEAD;

	if (len < IP6_HEAD + ND_BYTES || bytes[0] >> 4 != 6 || bytes[6] != IPPROTO_ICMPV6 ||
	    bytes[7] != ND_HOPS || icmp[0] != ND_NEIGHBOR_ADVERT ||
	    memcmp(icmp + 8, ip->bytes, 16) != 0)
		return false;
	memset(ret_mac, 0, NEIGHBOUR_MAC);
	if (len >= IP6_HEAD + ND_BYTES + OPTION_BYTES && icmp[24] == ND_OPT_TARGET_LINKADDR &&
	    icmp[25] == 1)
		memcpy(ret_mac, icmp + 26, NEIGHBOUR_MAC);
	return true;
}

/* --- both --- */

void neighbour_probe(const struct ip *ip, const uint8_t mac[NEIGHBOUR_MAC],
		     struct neighbour_packet *ret)
{
	static const uint8_t nobody[4] = {0};

	if (ip->len == 4)
		arp(ARPOP_REQUEST, nobody, mac, ip->bytes, ret);
	else
		nd_probe(ip, ret);
}

void neighbour_announce(const struct ip *ip, const uint8_t mac[NEIGHBOUR_MAC], unsigned turn,
			struct neighbour_packet *ret)
{
	if (ip->len == 4)
		arp(turn % 2 != 0 ? ARPOP_REPLY : ARPOP_REQUEST, ip->bytes, mac, ip->bytes, ret);
	else
		nd_announce(ip, mac, ret);
}

bool neighbour_claims(uint16_t protocol, const uint8_t *bytes, size_t len, const struct ip *ip,
		      uint8_t ret_mac[NEIGHBOUR_MAC])
{
	if (protocol == ETHERTYPE_ARP && ip->len == 4)
		return arp_claims(bytes, len, ip, ret_mac);
	if (protocol == ETHERTYPE_IPV6 && ip->len == 16)
		return nd_claims(bytes, len, ip, ret_mac);
	return false;
}
