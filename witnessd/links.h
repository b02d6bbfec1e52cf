/* links.h: this machine's network interfaces and their addresses, by rtnetlink. The only file that
 * names libmnl.
 *
 * Our addresses carry a mark of their own (IFA_PROTO, Linux 5.18) and a life of seconds, at the end
 * of which the kernel removes them, whatever has become of this process. All calls block for as
 * long as the kernel takes to do what is asked; they belong into a thread that may wait. Then it
 * answers at once: an answer that does not come (memory was short) is -ETIMEDOUT after
 * LINKS_ANSWER_MS, and the next call is not misled by it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "lib/ip.h"

enum {
	LINKS_MAX = 32, /* interfaces that are looked at */
	LINKS_PROTO = 0x54, /* of our addresses ("T"); iproute2 shows "proto 0x54" */
	LINKS_ANSWER_MS = 1000, /* the kernel says nothing for so long: the answer is lost */
};

struct link_info {
	int index;
	char name[LIMIT_INTERFACE + 1];
	uint8_t mac[6];
	bool ethernet; /* it has such a MAC */
	bool up; /* and has a carrier; never the loopback */
};

struct links;

/* Negative errno. */
int links_open(struct links **ret);
void links_close(struct links *l); /* NULL is fine */

/* Those that are there; at most LINKS_MAX. */
int links_list(struct links *l, struct link_info ret[LINKS_MAX], unsigned *ret_count);
/* Adds the address or prolongs its life: `life_s` from now. -EPERM: CAP_NET_ADMIN is missing;
 * -ENODEV. An address that is there becomes ours, so ask first. */
int links_address_add(struct links *l, int index, const struct ip *ip, unsigned prefix,
		      unsigned life_s);
/* -EADDRNOTAVAIL: it is not there. */
int links_address_remove(struct links *l, int index, const struct ip *ip, unsigned prefix);
struct link_address {
	int index;
	unsigned prefix;
	struct ip ip;
	bool ours;
};
/* Every address of every interface; `visit` must not use the links. */
int links_addresses(struct links *l, void (*visit)(void *arg, const struct link_address *address),
		    void *arg);
