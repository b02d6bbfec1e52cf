#include "lib/hash.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/rng.h"

static uint64_t hash_seed[2];
static pthread_once_t hash_seed_once = PTHREAD_ONCE_INIT;

static void hash_seed_draw(void)
{
	rng_fill(hash_seed, sizeof(hash_seed));
}

static uint64_t rotl(uint64_t x, int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

uint64_t hash_bytes(const void *data, size_t len)
{
	const uint8_t *in = data;
	uint64_t v[4];
	uint64_t last = (uint64_t)len << 56;
	size_t left = len;

	pthread_once(&hash_seed_once, hash_seed_draw);
	v[0] = hash_seed[0] ^ 0x736f6d6570736575ULL;
	v[1] = hash_seed[1] ^ 0x646f72616e646f6dULL;
	v[2] = hash_seed[0] ^ 0x6c7967656e657261ULL;
	v[3] = hash_seed[1] ^ 0x7465646279746573ULL;
	for (; left >= 8; left -= 8, in += 8) {
		uint64_t word;

		memcpy(&word, in, 8);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	for (size_t i = 0; i < left; i++)
		last |= (uint64_t)in[i] << (8 * i);
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t hash_string(const char *text)
{
	return hash_bytes(text, strlen(text));
}

uint64_t hash_u64(uint64_t value)
{
	return hash_bytes(&value, sizeof(value));
}

struct hash_node *hash_find(const struct hash *h, uint64_t hash, hash_match match, const void *key)
{
	if (h->bucket_count == 0)
		return NULL;
	for (struct hash_node *n = h->buckets[hash & (h->bucket_count - 1)]; n; n = n->next)
		if (n->hash == hash && match(n, key))
			return n;
	return NULL;
}

static void hash_grow(struct hash *h)
{
	size_t count = h->bucket_count ? h->bucket_count * 2 : 16;
	struct hash_node **buckets = mem_array(count, sizeof(*buckets));

	for (size_t i = 0; i < h->bucket_count; i++) {
		for (struct hash_node *n = h->buckets[i], *next; n; n = next) {
			next = n->next;
			n->next = buckets[n->hash & (count - 1)];
			buckets[n->hash & (count - 1)] = n;
		}
	}
	free(h->buckets);
	h->buckets = buckets;
	h->bucket_count = count;
}

void hash_insert(struct hash *h, struct hash_node *node, uint64_t hash)
{
	struct hash_node **bucket;

	if (h->count >= h->bucket_count)
		hash_grow(h);
	bucket = &h->buckets[hash & (h->bucket_count - 1)];
	node->hash = hash;
	node->next = *bucket;
	*bucket = node;
	h->count++;
}

void hash_remove(struct hash *h, struct hash_node *node)
{
	struct hash_node **at = &h->buckets[node->hash & (h->bucket_count - 1)];

	while (*at != node) {
		assert(*at != NULL);
		at = &(*at)->next;
	}
	*at = node->next;
	h->count--;
}

void hash_each(struct hash *h, void (*visit)(struct hash_node *node, void *arg), void *arg)
{
	for (size_t i = 0; i < h->bucket_count; i++) {
		for (struct hash_node *n = h->buckets[i], *next; n; n = next) {
			next = n->next;
			visit(n, arg);
		}
	}
}

void hash_free(struct hash *h)
{
	free(h->buckets);
	*h = (struct hash){0};
}
