/* beacon.h: which other nodes of the site this one can see: each agent sends every peer a datagram
 * every second and counts those as seen that it heard from within the last three. Not
 * authenticated (proto/agent.proto says why that does no harm); only datagrams from a peer's own
 * address count. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/settings.h"

struct beacon;

enum { BEACON_EVERY_MS = 1000, BEACON_SEEN_MS = 3500, BEACON_BYTES = 256 };

/* NULL in *ret: no peer has an address, nothing to do. 0; other: *ret_message (owned by the caller)
 * says address, cause and remedy. */
int beacon_open(const struct settings *s, uint64_t now_ms, struct beacon **ret, char **ret_message);
void beacon_close(struct beacon *b); /* NULL is fine */
int beacon_fd(const struct beacon *b); /* -1 for NULL */
/* Reads and sends what is due. */
void beacon_turn(struct beacon *b, uint64_t now_ms);
/* When to turn next. */
uint64_t beacon_due(const struct beacon *b); /* UINT64_MAX for NULL */
/* The nodes seen, sorted; returns how many. */
size_t beacon_seen(const struct beacon *b, uint64_t now_ms, uint32_t nodes[WITNESS_AGENT_NODES]);

/* The node that says it is there; 0: no beacon of this site. Pure. */
uint32_t beacon_parse(const uint8_t *data, size_t len, const char *site);
