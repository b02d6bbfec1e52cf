/* neighbour.h: what machines of one network tell each other about addresses: ARP (RFC 826, RFC
 * 5227) for IPv4, Neighbour Discovery (RFC 4861) for IPv6. Packets without the Ethernet header.
 * Pure.
 *
 *   probe      "does anybody have this address?", asked by nobody: disturbs no one's memory
 *   announce   "I have it": gratuitous ARP, unsolicited neighbour advertisement with override */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/ip.h"

enum { NEIGHBOUR_BYTES = 80, NEIGHBOUR_MAC = 6 };

struct neighbour_packet {
	uint16_t protocol; /* of Ethernet: ARP, IPv6 */
	uint8_t to[NEIGHBOUR_MAC];
	size_t len;
	uint8_t bytes[NEIGHBOUR_BYTES];
};

/* `mac`: of the interface that sends it. */
void neighbour_probe(const struct ip *ip, const uint8_t mac[NEIGHBOUR_MAC],
		     struct neighbour_packet *ret);
/* Two forms, which others hear of differently: `turn` odd and even (IPv4: request and reply). */
void neighbour_announce(const struct ip *ip, const uint8_t mac[NEIGHBOUR_MAC], unsigned turn,
			struct neighbour_packet *ret);
/* Does the packet say that somebody has the address? True and his MAC. Hostile bytes. */
bool neighbour_claims(uint16_t protocol, const uint8_t *bytes, size_t len, const struct ip *ip,
		      uint8_t ret_mac[NEIGHBOUR_MAC]);
