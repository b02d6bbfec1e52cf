/* admission.h: how many connections of site nodes the board holds, in all and from each address.
 *
 * Shared by the loops of the site door, which count connections in and out from their own threads;
 * a lock inside. IPv6 addresses count by their /64, since one host has a whole one. */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

struct admission;
struct place; /* of one connection */

enum { ADMISSION_WHY = 160 };

struct admission_limits {
	unsigned sessions_max; /* connections in all */
	unsigned per_address_max; /* 0: no limit */
	/* Connections from one address that are not attached yet; 0: no limit. Otherwise one
	 * address could hold all places without ever saying who it is. */
	unsigned pending_per_address_max;
};

struct admission *admission_new(const struct admission_limits *limits);
/* All places were left. */
void admission_free(struct admission *a);
/* A connection from `peer`: 0 and its place, or -EUSERS and `ret_why`: the limit, with its name in
 * the settings. */
int admission_enter(struct admission *a, const struct sockaddr *peer, struct place **ret,
		    char ret_why[ADMISSION_WHY]);
/* It is attached: no longer pending. May be called again. */
void admission_attached(struct place *p);
void admission_leave(struct place *p);
