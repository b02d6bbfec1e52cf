/* qnetd_text.h: status in the words of corosync-qnetd-tool, for runbooks that read them. */
#pragma once
#include <stdbool.h>

#include "lib/buf.h"
#include "proto/model.pb-c.h"

/* `corosync-qnetd-tool -s`. `clusters`: with at least one client. `address`: "*:5403". */
void qnetd_status_text(struct buf *out, const char *address, uint64_t clients, uint64_t clusters,
		       bool verbose);
/* One cluster of `corosync-qnetd-tool -l`; nothing if no node is attached. */
void qnetd_cluster_text(struct buf *out, const Tb__Site *site, bool verbose);
