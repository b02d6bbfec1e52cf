#include "cli/qnetd_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/mem.h"

void qnetd_status_text(struct buf *out, const char *address, uint64_t clients, uint64_t clusters,
		       bool verbose)
{
	buf_printf(out, "QNetd address:\t\t\t%s\n", address);
	buf_puts(out, "TLS:\t\t\t\tSupported (client certificate required)\n");
	buf_printf(out, "Connected clients:\t\t%" PRIu64 "\n", clients);
	buf_printf(out, "Connected clusters:\t\t%" PRIu64 "\n", clusters);
	if (verbose)
		buf_puts(out, "Maximum send/receive size:\t32768/32768 bytes\n");
}

static const char *algorithm_text(Tb__Algorithm algorithm)
{
	switch (algorithm) {
	case TB__ALGORITHM__ALGORITHM_FFSPLIT:
		return "Fifty-Fifty split";
	case TB__ALGORITHM__ALGORITHM_2NODELMS:
		return "2 Node LMS";
	case TB__ALGORITHM__ALGORITHM_LMS:
		return "LMS";
	default:
		return "Test";
	}
}

static const char *heuristics_text(Tb__Heuristics heuristics)
{
	switch (heuristics) {
	case TB__HEURISTICS__HEURISTICS_PASS:
		return "Pass";
	case TB__HEURISTICS__HEURISTICS_FAIL:
		return "Fail";
	default:
		return "Undefined";
	}
}

static const char *vote_text(Tb__Vote vote)
{
	switch (vote) {
	case TB__VOTE__VOTE_ACK:
		return "ACK";
	case TB__VOTE__VOTE_NACK:
		return "NACK";
	case TB__VOTE__VOTE_ASK_LATER:
		return "Ask later";
	case TB__VOTE__VOTE_WAIT_FOR_REPLY:
		return "Wait for reply";
	case TB__VOTE__VOTE_NO_CHANGE:
		return "No change";
	default:
		return "Undefined";
	}
}

static void list_text(struct buf *out, const uint32_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		buf_printf(out, "%s%" PRIu32, i > 0 ? ", " : "", numbers[i]);
	buf_putc(out, '\n');
}

static void heuristics_line(struct buf *out, const Tb__SiteNode *n, bool verbose)
{
	if (!verbose && n->heuristics == TB__HEURISTICS__HEURISTICS_UNDEFINED)
		return;
	buf_printf(out, "        Heuristics:\t\t%s", heuristics_text(n->heuristics));
	if (verbose)
		buf_printf(out, " (membership: %s, regular: %s)",
			   heuristics_text(n->membership_heuristics),
			   heuristics_text(n->regular_heuristics));
	buf_putc(out, '\n');
}

static void vote_line(struct buf *out, const Tb__SiteNode *n)
{
	if (n->vote == TB__VOTE__VOTE_NONE)
		return;
	buf_printf(out, "        Vote:\t\t\t%s", vote_text(n->vote));
	if (n->last_result != TB__VOTE__VOTE_NONE)
		buf_printf(out, " (%s)", vote_text(n->last_result));
	buf_putc(out, '\n');
}

static void node_text(struct buf *out, const Tb__SiteNode *n, bool verbose)
{
	buf_printf(out, "    Node ID %" PRIu32 ":\n", n->node_id);
	buf_printf(out, "        Client address:\t\t%s\n", n->address);
	if (verbose)
		buf_printf(out, "        HB interval:\t\t%" PRIu32 "ms\n", n->heartbeat_ms);
	if (n->config_version_set)
		buf_printf(out, "        Configuration version:\t%" PRIu64 "\n", n->config_version);
	if (n->n_configured > 0) {
		buf_puts(out, "        Configured node list:\t");
		list_text(out, n->configured, n->n_configured);
	}
	if (verbose && n->ring != NULL)
		buf_printf(out, "        Ring ID:\t\t%" PRIx32 ".%" PRIx64 "\n", n->ring->node,
			   n->ring->seq);
	if (n->n_members > 0) {
		buf_puts(out, "        Membership node list:\t");
		list_text(out, n->members, n->n_members);
	}
	heuristics_line(out, n, verbose);
	if (verbose && n->tls)
		buf_printf(out, "        TLS active:\t\tYes%s\n",
			   n->certificate ? " (client certificate verified)" : "");
	else if (verbose)
		buf_puts(out, "        TLS active:\t\tNo\n");
	vote_line(out, n);
}

static int by_node_id(const void *a, const void *b)
{
	const Tb__SiteNode *const *left = a, *const *right = b;

	return ((*left)->node_id > (*right)->node_id) - ((*left)->node_id < (*right)->node_id);
}

void qnetd_cluster_text(struct buf *out, const Tb__Site *site, bool verbose)
{
	const Tb__SiteStatus *s = site->status;
	Tb__SiteNode **nodes;
	bool keep = true;

	if (s == NULL || s->n_nodes == 0)
		return;
	nodes = mem_dup(s->nodes, s->n_nodes * sizeof(*nodes));
	qsort(nodes, s->n_nodes, sizeof(*nodes), by_node_id);
	for (size_t i = 0; i < s->n_nodes; i++)
		keep = keep && nodes[i]->keep_active_partition &&
		       nodes[i]->algorithm == TB__ALGORITHM__ALGORITHM_FFSPLIT;
	buf_printf(out, "Cluster \"%s\":\n", site->name);
	buf_printf(out, "    Algorithm:\t\t%s%s\n", algorithm_text(nodes[0]->algorithm),
		   keep ? " (KAP Tie-breaker)" : "");
	if (nodes[0]->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_NODE)
		buf_printf(out, "    Tie-breaker:\tNode with node ID %" PRIu32 "\n",
			   nodes[0]->tie_breaker_node);
	else
		buf_printf(out, "    Tie-breaker:\tNode with %s node ID\n",
			   nodes[0]->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_HIGHEST
				   ? "highest"
				   : "lowest");
	for (size_t i = 0; i < s->n_nodes; i++)
		node_text(out, nodes[i], verbose);
	free(nodes);
}
