/* hash.h: an intrusive hash table, chained, growing by doubling.
 *
 * The owner embeds `struct hash_node` in its items and keeps the key there; the table
 * owns only its bucket array. Keys are hashed with a seed of the process (SipHash-1-3,
 * Aumasson and Bernstein 2012), so that clients cannot choose names that collide.
 * Iteration order is not stable: never let it decide anything. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct hash_node {
	struct hash_node *next;
	uint64_t hash;
};

struct hash {
	struct hash_node **buckets;
	size_t bucket_count; /* a power of two, or 0 while empty */
	size_t count;
};

/* True if `node` has the key. */
typedef int (*hash_match)(const struct hash_node *node, const void *key);

uint64_t hash_bytes(const void *data, size_t len);
uint64_t hash_string(const char *text);
uint64_t hash_u64(uint64_t value);

/* The first node with this hash for which match() is true, or NULL. */
struct hash_node *hash_find(const struct hash *h, uint64_t hash, hash_match match, const void *key);
/* The caller made sure that no such key is there. */
void hash_insert(struct hash *h, struct hash_node *node, uint64_t hash);
/* The node must be in the table. */
void hash_remove(struct hash *h, struct hash_node *node);
/* Calls `visit` for each node; `visit` may remove and free that node, and no other. */
void hash_each(struct hash *h, void (*visit)(struct hash_node *node, void *arg), void *arg);
/* Gives the bucket array back; the nodes are the caller's. */
void hash_free(struct hash *h);
