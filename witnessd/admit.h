/* admit.h: what the files that give a board its place in a cluster share: admit.c (init, join,
 * admission) and history.c (restore, recover). All of it runs in the core's thread. */
#pragma once
#include "witnessd/core_internal.h"
#include "witnessd/pki.h"

/* A request about this board's life; answered in the asker's thread. */
struct control {
	struct letter letter;
	struct mailbox *home;
	core_controlled done;
	core_recovered recovered; /* instead of done */
	Tb__ClusterRecovery *recovery; /* owned; for recovered */
	void *arg;
	int error;
	char message[512];
	/* the request, on the way in */
	struct core *core;
	Tb__ClusterInitRequest *init;
	Tb__ClusterJoinRequest *join;
	Tb__ClusterRecoverRequest *recover;
	struct buf backup;
};

/* Answers it and frees it. */
void control_finish(struct control *k, int error, const char *message);

/* A certificate made or checked by a clock that is decades off would be useless for decades. */
int admit_clock_check(char *message, size_t room);
/* Names and addresses of this board as asked for, or as configured. */
int admit_names(struct core *c, struct identity *id, const char *name, const char *address,
		const char *qnet_address, char *message, size_t room);
/* A board's certificate, and its row for the model. */
struct admit_signer {
	const char *ca_cert;
	const char *ca_key;
	int64_t life_ms;
};
int admit_certificate(const struct admit_signer *signer, const char *csr, uint64_t node,
		      const char *name, int64_t now_ms, struct pki_signed *ret,
		      const char **ret_message);
void admit_certificate_row(Tb__Certificate *row, const struct pki_signed *made, const char *ca_cert,
			   const char *subject, const char *by, int64_t now_ms);
/* How long certificates live; NULL: of a new cluster. */
int64_t admit_life_ms(const Tb__Cluster *cluster);
void admit_node_row(Tb__Node *node, const struct identity *id, enum _Tb__NodeRole role,
		    int64_t now_ms);
