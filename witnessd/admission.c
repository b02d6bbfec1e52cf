#include "witnessd/admission.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/hash.h"
#include "lib/list.h"
#include "lib/mem.h"

enum { KEY_BYTES = 16, KEY_V6_BYTES = 8 };

/* All connections from one address. */
struct origin {
	struct hash_node node;
	uint8_t key[KEY_BYTES];
	unsigned count;
	unsigned pending;
};

struct place {
	struct admission *admission;
	struct origin *origin;
	bool pending;
};

struct admission {
	pthread_mutex_t lock;
	struct admission_limits limits;
	struct hash origins;
	unsigned count;
};

struct admission *admission_new(const struct admission_limits *limits)
{
	struct admission *a = mem_zalloc(sizeof(*a));

	a->limits = *limits;
	pthread_mutex_init(&a->lock, NULL);
	return a;
}

void admission_free(struct admission *a)
{
	if (a == NULL)
		return;
	assert(a->count == 0);
	hash_free(&a->origins);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* IPv4 as IPv6 maps it (RFC 4291, 2.5.5.2), whichever socket it came by. */
static void origin_key(const struct sockaddr *peer, uint8_t key[KEY_BYTES])
{
	static const uint8_t mapped[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	const void *at = peer;

	memset(key, 0, KEY_BYTES);
	if (peer->sa_family == AF_INET) {
		memcpy(key, mapped, sizeof(mapped));
		memcpy(key + sizeof(mapped), &((const struct sockaddr_in *)at)->sin_addr, 4);
	} else if (peer->sa_family == AF_INET6) {
		const uint8_t *v6 = ((const struct sockaddr_in6 *)at)->sin6_addr.s6_addr;

		memcpy(key, v6, memcmp(v6, mapped, sizeof(mapped)) == 0 ? KEY_BYTES : KEY_V6_BYTES);
	}
}

static int origin_match(const struct hash_node *node, const void *key)
{
	return memcmp(list_entry(node, struct origin, node)->key, key, KEY_BYTES) == 0;
}

static struct origin *origin_get(struct admission *a, const struct sockaddr *peer)
{
	uint8_t key[KEY_BYTES];
	struct hash_node *found;
	struct origin *o;
	uint64_t hash;

	origin_key(peer, key);
	hash = hash_bytes(key, KEY_BYTES);
	found = hash_find(&a->origins, hash, origin_match, key);
	if (found != NULL)
		return list_entry(found, struct origin, node);
	o = mem_zalloc(sizeof(*o));
	memcpy(o->key, key, KEY_BYTES);
	hash_insert(&a->origins, &o->node, hash);
	return o;
}

static bool refused(const struct admission *a, const struct origin *o, char why[ADMISSION_WHY])
{
	const struct admission_limits *l = &a->limits;

	if (a->count >= l->sessions_max)
		snprintf(why, ADMISSION_WHY, "all %u places are taken (sites.sessions-max)",
			 l->sessions_max);
	else if (l->per_address_max != 0 && o->count >= l->per_address_max)
		snprintf(why, ADMISSION_WHY,
			 "its address has %u connections already (sites.sessions-per-address-max)",
			 l->per_address_max);
	else if (l->pending_per_address_max != 0 && o->pending >= l->pending_per_address_max)
		snprintf(why, ADMISSION_WHY,
			 "%u connections from its address are not attached yet "
			 "(sites.pending-per-address-max)",
			 l->pending_per_address_max);
	else
		return false;
	return true;
}

static void origin_maybe_free(struct admission *a, struct origin *o)
{
	if (o->count != 0)
		return;
	hash_remove(&a->origins, &o->node);
	free(o);
}

int admission_enter(struct admission *a, const struct sockaddr *peer, struct place **ret,
		    char ret_why[ADMISSION_WHY])
{
	struct origin *o;
	bool out;

	pthread_mutex_lock(&a->lock);
	o = origin_get(a, peer);
	out = refused(a, o, ret_why);
	if (!out) {
		*ret = mem_alloc(sizeof(**ret));
		**ret = (struct place){.admission = a, .origin = o, .pending = true};
		a->count++;
		o->count++;
		o->pending++;
	} else {
		origin_maybe_free(a, o);
	}
	pthread_mutex_unlock(&a->lock);
	return out ? -EUSERS : 0;
}

static void place_settle(struct place *p)
{
	p->origin->pending -= p->pending;
	p->pending = false;
}

void admission_attached(struct place *p)
{
	struct admission *a = p->admission;

	pthread_mutex_lock(&a->lock);
	place_settle(p);
	pthread_mutex_unlock(&a->lock);
}

void admission_leave(struct place *p)
{
	struct admission *a = p->admission;

	pthread_mutex_lock(&a->lock);
	place_settle(p);
	a->count--;
	p->origin->count--;
	origin_maybe_free(a, p->origin);
	pthread_mutex_unlock(&a->lock);
	free(p);
}
