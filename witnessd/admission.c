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

/* All connections from one address. */
struct origin {
	struct hash_node node; /* not of a member */
	struct ip key;
	unsigned count;
	unsigned pending;
	bool member;
	bool former; /* a member that is none any more: freed with its last place */
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
	struct origin *members[ADMISSION_MEMBERS_MAX];
	size_t member_count;
	unsigned count; /* without those of members */
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
	admission_members_set(a, NULL, 0);
	hash_free(&a->origins);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static int origin_match(const struct hash_node *node, const void *key)
{
	return ip_equal(&list_entry(node, struct origin, node)->key, key);
}

static struct origin *origin_new(const struct ip *key)
{
	struct origin *o = mem_zalloc(sizeof(*o));

	o->key = *key;
	return o;
}

static struct origin *origin_get(struct admission *a, const struct ip *address)
{
	struct ip key = ip_origin(address);
	uint64_t hash = hash_bytes(&key, sizeof(key));
	struct hash_node *found = hash_find(&a->origins, hash, origin_match, &key);
	struct origin *o;

	if (found != NULL)
		return list_entry(found, struct origin, node);
	o = origin_new(&key);
	hash_insert(&a->origins, &o->node, hash);
	return o;
}

static void origin_maybe_free(struct admission *a, struct origin *o)
{
	if (o->count != 0 || (o->member && !o->former))
		return;
	if (!o->member)
		hash_remove(&a->origins, &o->node);
	free(o);
}

/* Out of the members; NULL: it is none. */
static struct origin *member_take(struct admission *a, const struct ip *address)
{
	struct origin *o;

	for (size_t i = 0; i < a->member_count; i++) {
		o = a->members[i];
		if (!ip_equal(&o->key, address))
			continue;
		a->members[i] = a->members[--a->member_count];
		return o;
	}
	return NULL;
}

void admission_members_set(struct admission *a, const struct ip *members, size_t count)
{
	struct origin *now[ADMISSION_MEMBERS_MAX];

	assert(count <= ADMISSION_MEMBERS_MAX);
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < count; i++) {
		now[i] = member_take(a, &members[i]);
		if (now[i] == NULL)
			now[i] = origin_new(&members[i]);
		now[i]->member = true;
	}
	for (size_t i = 0; i < a->member_count; i++) {
		a->members[i]->former = true;
		origin_maybe_free(a, a->members[i]);
	}
	memcpy(a->members, now, count * sizeof(*now));
	a->member_count = count;
	pthread_mutex_unlock(&a->lock);
}

static bool member_has_room(const struct admission *a, const struct ip *address,
			    struct origin **ret)
{
	for (size_t i = 0; i < a->member_count; i++) {
		if (!ip_equal(&a->members[i]->key, address))
			continue;
		*ret = a->members[i];
		return (*ret)->pending < a->limits.pending_per_member_max;
	}
	return false;
}

static bool refused(const struct admission *a, const struct origin *o, char why[ADMISSION_WHY])
{
	const struct admission_limits *l = &a->limits;

	if (a->count >= l->sessions_max)
		snprintf(why, ADMISSION_WHY, "all %u places are taken (%s)", l->sessions_max,
			 l->sessions_setting);
	else if (l->per_address_max != 0 && o->count >= l->per_address_max)
		snprintf(why, ADMISSION_WHY,
			 "its address has %u connections already (sites.sessions-per-address-max)",
			 l->per_address_max);
	else if (l->pending_per_address_max != 0 && o->pending >= l->pending_per_address_max)
		snprintf(why, ADMISSION_WHY,
			 "%u connections from its address are not attached yet (%s)",
			 l->pending_per_address_max, l->pending_setting);
	else
		return false;
	return true;
}

int admission_enter(struct admission *a, const struct sockaddr *peer, struct place **ret,
		    char ret_why[ADMISSION_WHY])
{
	struct ip address = {0};
	struct origin *o = NULL;
	uint16_t port;
	bool out = false;

	(void)ip_of_socket(peer, &address, &port);
	pthread_mutex_lock(&a->lock);
	if (!member_has_room(a, &address, &o)) {
		o = origin_get(a, &address);
		out = refused(a, o, ret_why);
	}
	if (!out) {
		*ret = mem_alloc(sizeof(**ret));
		**ret = (struct place){.admission = a, .origin = o, .pending = true};
		a->count += !o->member;
		o->count++;
		o->pending++;
	} else {
		origin_maybe_free(a, o);
	}
	pthread_mutex_unlock(&a->lock);
	return out ? -EUSERS : 0;
}

bool admission_is_member(const struct place *p)
{
	return p->origin->member;
}

const struct ip *admission_origin(const struct place *p)
{
	return &p->origin->key;
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
	a->count -= !p->origin->member;
	p->origin->count--;
	origin_maybe_free(a, p->origin);
	pthread_mutex_unlock(&a->lock);
	free(p);
}
