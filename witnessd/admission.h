/* admission.h: how many connections a port of the board holds, in all and from each address.
 *
 * Shared by the loops of the site door, which count connections in and out from their own threads;
 * a lock inside. IPv6 addresses count by their /64, since one host has a whole one.
 *
 * Members are addresses of the cluster's other boards: some connections of each have places beside
 * all the others, so that nobody else can take them. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "cluster/limits.h"
#include "lib/ip.h"

struct admission;
struct place; /* of one connection */

/* Of each board: the one that it tells of itself and the one that it was seen to have. */
enum { ADMISSION_WHY = 160, ADMISSION_MEMBERS_MAX = 2 * LIMIT_NODES };

struct admission_limits {
	unsigned sessions_max; /* connections in all */
	unsigned per_address_max; /* 0: no limit */
	/* Connections from one address that are not attached yet; 0: no limit. Otherwise one
	 * address could hold all places without ever saying who it is. */
	unsigned pending_per_address_max;
	/* The same from one member, beside all others. What it has above that is as anybody's: a
	 * whole house may come by the address of a board. */
	unsigned pending_per_member_max;
	const char *sessions_setting; /* what the first and the third are called in the settings */
	const char *pending_setting;
};

struct admission *admission_new(const struct admission_limits *limits);
/* All places were left. */
void admission_free(struct admission *a);
/* Who are members from now on; whole addresses, not a /64. At most ADMISSION_MEMBERS_MAX. */
void admission_members_set(struct admission *a, const struct ip *members, size_t count);
/* A connection from `peer`: 0 and its place, or -EUSERS and `ret_why`: the limit, with its name in
 * the settings. */
int admission_enter(struct admission *a, const struct sockaddr *peer, struct place **ret,
		    char ret_why[ADMISSION_WHY]);
/* It has one of the places that are kept for a member. */
bool admission_is_member(const struct place *p);
/* The address that it counts for (ip_origin); it lives as long as the place. */
const struct ip *admission_origin(const struct place *p);
/* It is attached: no longer pending. May be called again. */
void admission_attached(struct place *p);
void admission_leave(struct place *p);
