/* address_claim.h: which service addresses a board may have, as far as can be told from the letters
 * that went to it and came from it. Two books with the same idea: what was sent counts from the
 * moment of sending, until an answer says that it was carried out. Pure.
 *
 *   leader: address_claim   <--- report(serial, held) ---   board: address_orders   <--- holder
 *                           ---- order(serial, hold) --->                           ---> holder
 *
 * On each link a board first reports all that it may have. Before that the leader sends no order,
 * so that none can be missing in it. Orders of one leadership are numbered; no number comes again.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cluster/limits.h"
#include "lib/ip.h"

enum { IP_LIST_MAX = 4 * LIMIT_ADDRESSES }; /* of a board: ordered, held, and leaving */

struct ip_list {
	struct ip items[IP_LIST_MAX];
	unsigned count;
};
bool ip_list_has(const struct ip_list *l, const struct ip *ip);
/* Once; a list that is full stays as it is. */
void ip_list_add(struct ip_list *l, const struct ip *ip);
void ip_list_add_all(struct ip_list *l, const struct ip_list *other);

/* --- the leader's book of a board --- */
struct address_claim {
	bool known; /* it has reported on its present link */
	bool again; /* it has no order in force: the next one goes out in any case */
	uint64_t serial; /* of the newest order to it; 0: none on this link */
	struct ip_list ordered; /* that order */
	struct ip_list has; /* it has these, or may have them */
};
/* A new link; its first report is to come. */
void address_claim_greet(struct address_claim *c);
void address_claim_order(struct address_claim *c, uint64_t serial, const struct ip_list *hold);
/* `serial`: of the newest order that is in force there; 0: none is. False: to be passed over, since
 * it is not the first of its link though that is still to come. */
bool address_claim_report(struct address_claim *c, uint64_t serial, const struct ip_list *held);

/* Its lease is over, and with it every order, also one on its way: it has nothing until told anew.
 */
void address_claim_over(struct address_claim *c);

/* --- a board's book of its holder --- */
struct address_orders {
	uint64_t letter; /* of the newest order that was handed on */
	uint64_t serial; /* of that order; 0: it only ends the one before */
	struct ip_list hold; /* that order */
	struct ip_list
		pending; /* of all orders that may not be carried out yet, and of the newest */
};
/* An order is handed on; serial 0 and no addresses: none is in force any more. */
void address_orders_give(struct address_orders *o, uint64_t serial, const struct ip_list *hold);
/* The holder has opened that letter, and has the order of that serial in force (0: none). */
void address_orders_opened(struct address_orders *o, uint64_t letter, uint64_t serial);
