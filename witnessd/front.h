/* front.h: the thread that faces operators and the other boards: one TLS port for the API, links of
 * boards and boards that want to join (told apart by ALPN), the Unix socket of the board itself,
 * and the outgoing links.
 *
 *   ALPN                              who                              becomes
 *   none, http/1.1                    anyone; the API decides          a connection of http.h
 *   tiebreak-peer/1, tiebreak-raft/1  a board's certificate            a socket for the core
 *   tiebreak-join/1                   anyone; the token decides        JoinRequest, JoinReply
 *   tiebreak-agent/1                  a certificate of an agent        a session of agent_door.h
 *   tiebreak-host/1                   a board's certificate            a socket for the host
 *
 * The Unix socket is there from the start; the TLS port opens once the board has an identity. */
#pragma once
#include <stdint.h>

#include "proto/peer.pb-c.h"
#include "witnessd/metrics.h"

struct config;
struct core;
struct front;
struct agent_door;
struct host;

/* After core_new, before core_start. 0; other: *ret_message (valid until the next call) says what
 * is wrong, where, and the remedy; a port in use is found here. */
int front_start(const struct config *config, struct core *core, struct front **ret,
		const char **ret_message);
/* After core_stop, before core_free. Ends connections and the thread, frees. */
void front_stop(struct front *f);

/* What others may add their numbers to; lives as long as the front. */
struct metrics *front_metrics(struct front *f);
/* The door of agents; lives as long as the front. */
struct agent_door *front_agents(struct front *f);
/* The TLS port in use, 0 while closed. Any thread. */
unsigned front_port(const struct front *f);

/* What the core calls (struct core_listeners); from any thread, each returns at once. */
void front_model_changed(struct front *f, uint64_t applied_index);
void front_identity_changed(struct front *f);
void front_link_dial(struct front *f, uint64_t dial_id, const char *address, const char *alpn,
		     uint64_t expect_node);
void front_join_dial(struct front *f, uint64_t dial_id, const char *address, const char *pin,
		     Tb__JoinRequest *request); /* taken over */

/* Whose host links are, and whose consoles; before the core starts, once. Without one such links
 * are refused. */
void front_host_set(struct front *f, struct host *h);
/* Whether somebody listens there, answered by core_link_dialed with 0 or an error. Any thread. */
void front_reach_dial(struct front *f, uint64_t dial_id, const char *address);
/* A host link to a board, answered by host_link_dialed. Any thread. */
void front_host_dial(struct front *f, uint64_t dial_id, const char *address, uint64_t node);
