/* settings.h: witness-agent.conf. Each setting is explained in witness-agent(8). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/witness_agent.h"

struct settings_peer {
	uint32_t node;
	char *address; /* host:port for beacons; NULL: not said */
};

struct settings {
	char *site;
	uint32_t node;
	char *boards[WITNESS_AGENT_BOARDS + 1]; /* host:port, NULL-terminated */
	struct settings_peer peers[WITNESS_AGENT_NODES];
	unsigned peer_count;
	char *listen; /* *:7444; for beacons of peers */
	uint64_t lease_ms; /* 10000 */
	uint64_t stop_ms; /* 0: a quarter of the lease */
	bool acquire; /* want the lease from the start; on */
	char *on_gain, *on_loss, *on_loss_failed; /* commands for sh -c; NULL: none */
	char *run_dir; /* /run/witness-agent */
	char *state_dir; /* /var/lib/witness-agent */
	unsigned log_level; /* 3 error .. 7 debug; default 6 */
};

enum { SETTINGS_PORT = 7443, SETTINGS_BEACON_PORT = 7444 };

/* All defaults. */
void settings_init(struct settings *s);
void settings_free(struct settings *s);
/* The text of a file over what `s` holds. 0, or -EINVAL and a message with file, line and remedy
 * (owned by the caller). */
int settings_parse(struct settings *s, const char *file_name, const char *text, size_t len,
		   char **ret_message);
/* The same from a file; -ENOENT and others if it cannot be read. */
int settings_read(struct settings *s, const char *path, char **ret_message);
/* One setting as from the command line. */
int settings_set(struct settings *s, const char *name, const char *value, char **ret_message);
/* Is all there that the daemon needs, and does it fit together? */
int settings_check(const struct settings *s, char **ret_message);
/* This node and its peers; returns how many. */
size_t settings_nodes(const struct settings *s, uint32_t nodes[WITNESS_AGENT_NODES]);
