#include "cluster/roll.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/list.h"
#include "lib/mem.h"

/* As packed, so that equal ones have equal bytes. */
struct entry {
	struct hash_node by_key;
	uint64_t node;
	uint8_t len;
	uint8_t bytes[ROLL_BYTES_MAX];
};

size_t roll_pack(const struct roll_ends *ends, uint8_t bytes[ROLL_BYTES_MAX])
{
	size_t len = ends->local.len;
	uint8_t *at = bytes;

	memcpy(at, ends->local.bytes, len);
	at += len;
	*at++ = (uint8_t)(ends->local_port >> 8);
	*at++ = (uint8_t)ends->local_port;
	memcpy(at, ends->remote.bytes, len);
	at += len;
	*at++ = (uint8_t)(ends->remote_port >> 8);
	*at++ = (uint8_t)ends->remote_port;
	return (size_t)(at - bytes);
}

int roll_unpack(const uint8_t *bytes, size_t len, struct roll_ends *ret)
{
	size_t ip_len = len == 12 ? 4 : 16;
	const uint8_t *remote = bytes + ip_len + 2;
	struct roll_ends ends;

	if (len != 12 && len != 36)
		return -EINVAL;
	ends = (struct roll_ends){
		.local = ip_of_bytes(bytes, ip_len),
		.local_port = (uint16_t)(bytes[ip_len] << 8 | bytes[ip_len + 1]),
		.remote = ip_of_bytes(remote, ip_len),
		.remote_port = (uint16_t)(remote[ip_len] << 8 | remote[ip_len + 1]),
	};
	/* One of them an IPv4 address in IPv6 clothes. */
	if (ends.local.len != ip_len || ends.remote.len != ip_len || ends.local_port == 0 ||
	    ends.remote_port == 0)
		return -EINVAL;
	*ret = ends;
	return 0;
}

static void entry_fill(struct entry *e, uint64_t node, const struct roll_ends *ends)
{
	e->node = node;
	e->len = (uint8_t)roll_pack(ends, e->bytes);
}

static uint64_t entry_hash(const struct entry *e)
{
	return hash_bytes(e->bytes, e->len) ^ hash_u64(e->node);
}

static int entry_match(const struct hash_node *at, const void *key)
{
	const struct entry *e = list_entry(at, struct entry, by_key);
	const struct entry *wanted = key;

	return e->node == wanted->node && e->len == wanted->len &&
	       memcmp(e->bytes, wanted->bytes, e->len) == 0;
}

static struct entry *entry_find(const struct roll *r, const struct entry *wanted)
{
	struct hash_node *at = hash_find(&r->entries, entry_hash(wanted), entry_match, wanted);

	return at != NULL ? list_entry(at, struct entry, by_key) : NULL;
}

static void entry_drop(struct roll *r, struct entry *e)
{
	hash_remove(&r->entries, &e->by_key);
	free(e);
}

void roll_add(struct roll *r, uint64_t node, const struct roll_ends *ends)
{
	struct entry wanted;
	struct entry *e;

	entry_fill(&wanted, node, ends);
	if (entry_find(r, &wanted) != NULL)
		return;
	if (r->entries.count >= ROLL_MAX) {
		r->left_out++;
		return;
	}
	e = mem_zalloc(sizeof(*e));
	entry_fill(e, node, ends);
	hash_insert(&r->entries, &e->by_key, entry_hash(e));
}

void roll_remove(struct roll *r, uint64_t node, const struct roll_ends *ends)
{
	struct entry wanted;
	struct entry *e;

	entry_fill(&wanted, node, ends);
	e = entry_find(r, &wanted);
	if (e != NULL)
		entry_drop(r, e);
}

struct walk {
	struct roll *r;
	uint64_t node;
	const struct ip *local;
	struct roll_ends *taken;
	size_t count, max;
	void (*visit)(void *arg, const struct roll_ends *ends);
	void *arg;
};

static void walk_forget(struct hash_node *at, void *arg)
{
	struct entry *e = list_entry(at, struct entry, by_key);
	struct walk *w = arg;

	if (e->node == w->node)
		entry_drop(w->r, e);
}

void roll_forget(struct roll *r, uint64_t node)
{
	struct walk w = {.r = r, .node = node};

	hash_each(&r->entries, walk_forget, &w);
}

static void walk_free(struct hash_node *at, void *arg)
{
	struct walk *w = arg;

	entry_drop(w->r, list_entry(at, struct entry, by_key));
}

void roll_free(struct roll *r)
{
	struct walk w = {.r = r};

	hash_each(&r->entries, walk_free, &w);
	hash_free(&r->entries);
}

static void walk_take(struct hash_node *at, void *arg)
{
	struct entry *e = list_entry(at, struct entry, by_key);
	struct walk *w = arg;

	if (w->count == w->max || e->node == w->node ||
	    memcmp(e->bytes, w->local->bytes, w->local->len) != 0 ||
	    e->len != 2u * w->local->len + 4)
		return;
	if (roll_unpack(e->bytes, e->len, &w->taken[w->count]) == 0)
		w->count++;
	entry_drop(w->r, e);
}

size_t roll_take(struct roll *r, const struct ip *local, uint64_t except, struct roll_ends *ret,
		 size_t max)
{
	struct walk w = {.r = r, .node = except, .local = local, .taken = ret, .max = max};

	hash_each(&r->entries, walk_take, &w);
	return w.count;
}

static void walk_each(struct hash_node *at, void *arg)
{
	const struct entry *e = list_entry(at, struct entry, by_key);
	struct walk *w = arg;
	struct roll_ends ends;

	if (e->node == w->node && roll_unpack(e->bytes, e->len, &ends) == 0)
		w->visit(w->arg, &ends);
}

void roll_each(struct roll *r, uint64_t node,
	       void (*visit)(void *arg, const struct roll_ends *ends), void *arg)
{
	struct walk w = {.node = node, .visit = visit, .arg = arg};

	hash_each(&r->entries, walk_each, &w);
}
