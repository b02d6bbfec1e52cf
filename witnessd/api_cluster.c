/* api_cluster.c: the cluster, its boards, and this board. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/api_call.h"

/* --- this board --- */

void api_health(struct api_call *call)
{
	api_answer_plain(call, 200, "ok\n");
}

void api_ready(struct api_call *call)
{
	const struct core_view *view = call->api->config.backend->view(call->api->config.core);
	uint64_t until_ms = view->lease_until_ms;

	if (view->node_id == 0)
		api_answer_plain(call, 503, "not in a cluster\n");
	else if (until_ms <= clock_boottime_ms())
		api_answer_plain(call, 503, "no lease: a majority of the boards is out of reach\n");
	else if (view->drained)
		api_answer_plain(call, 503, "drained: this board takes no site nodes\n");
	else
		api_answer_plain(call, 200, "ready\n");
}

void api_local(struct api_call *call)
{
	const struct api_config *config = &call->api->config;
	Tb__LocalStatus *status = config->backend->local_status(config->core);

	api_answer_message(call, &status->base);
	tb__local_status__free_unpacked(status, NULL);
}

/* --- the cluster --- */

static int row_count(struct api_call *call, const char *table, uint32_t *ret)
{
	uint64_t count = 0;
	int rv = store_count(api_store(call->api), table, &count);

	*ret = (uint32_t)count;
	return rv;
}

/* What this board can say by itself. */
static Tb__ClusterStatus *status_alone(struct api_call *call, int error)
{
	const struct core_view *view = call->api->config.backend->view(call->api->config.core);
	Tb__ClusterStatus *status = mem_alloc(sizeof(*status));

	tb__cluster_status__init(status);
	row_count(call, "node", &status->nodes);
	row_count(call, "site", &status->sites);
	status->leader = view->leader_id;
	status->term = view->term;
	status->applied_index = view->applied_index;
	api_field_set(&status->state, error == 0 ? "ok" : "no-quorum");
	return status;
}

static void cluster_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	Tb__ClusterStatus *status;
	Tb__Cluster *cluster;
	char *name;

	if (store_cluster_get(api_store(call->api), &cluster) != 0) {
		api_store_failed(call);
		return;
	}
	status = error == 0 && answer->cluster != NULL
			 ? (Tb__ClusterStatus *)message_copy(&answer->cluster->base)
			 : status_alone(call, error);
	name = api_node_name(call->api);
	api_field_set(&status->node, name);
	api_field_set(&status->version, TIEBREAK_VERSION);
	status->level_here = LEVEL_HERE;
	free(name);
	tb__cluster_status__free_unpacked(cluster->status, NULL);
	cluster->status = status;
	api_answer_message(call, &cluster->base);
	tb__cluster__free_unpacked(cluster, NULL);
}

static void cluster_answer(struct api_call *call)
{
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	query.what_case = TB__PEER_QUERY__WHAT_CLUSTER;
	query.cluster = true;
	api_query(call, &query, cluster_answered);
}

void api_cluster_get(struct api_call *call)
{
	cluster_answer(call);
}

void api_cluster_init(struct api_call *call)
{
	api_init_cluster(call, (const Tb__ClusterInitRequest *)call->request, cluster_answer);
}

void api_cluster_join(struct api_call *call)
{
	api_join_cluster(call, (const Tb__ClusterJoinRequest *)call->request, api_local);
}

static void cluster_applied(struct api_call *call, const Tb__CommandResult *result)
{
	(void)result;
	cluster_answer(call);
}

/* Settings that go into the log by commands of their own, one after the other. */
static void cluster_life_set(struct api_call *call, const Tb__CommandResult *result)
{
	const Tb__ClusterSetRequest *wanted = call->state;
	Tb__Command *command = api_command(call, 1);

	(void)result;
	command->op_case = TB__COMMAND__OP_CLUSTER_CERTIFICATES;
	command->cluster_certificates = mem_alloc(sizeof(*command->cluster_certificates));
	tb__cluster_certificates__init(command->cluster_certificates);
	command->cluster_certificates->life_ms = wanted->certificate_life_ms;
	api_propose(call, command, cluster_applied);
}

static void wanted_free(void *state)
{
	tb__cluster_set_request__free_unpacked(state, NULL);
}

void api_cluster_set(struct api_call *call)
{
	Tb__ClusterSetRequest *wanted = mem_alloc(sizeof(*wanted));
	struct json_error error = {0};
	Tb__Command *command;
	Tb__Cluster *cluster;
	bool life;

	tb__cluster_set_request__init(wanted);
	call->state = wanted;
	call->state_free = wanted_free;
	if (store_cluster_get(api_store(call->api), &cluster) != 0) {
		api_store_failed(call);
		return;
	}
	wanted->auto_register = cluster->auto_register;
	wanted->certificate_life_ms = cluster->certificate_life_ms;
	if (json_merge(&wanted->base, (const char *)call->body.data, call->body.len, &error) != 0) {
		tb__cluster__free_unpacked(cluster, NULL);
		api_problem_json(call, &error);
		return;
	}
	life = wanted->certificate_life_ms != cluster->certificate_life_ms;
	if (life && wanted->auto_register == cluster->auto_register &&
	    wanted->keep_room == TB__SWITCH__SWITCH_ANY) {
		tb__cluster__free_unpacked(cluster, NULL);
		cluster_life_set(call, NULL);
		return;
	}
	tb__cluster__free_unpacked(cluster, NULL);
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_CLUSTER_SET;
	command->cluster_set = mem_alloc(sizeof(*command->cluster_set));
	tb__cluster_set__init(command->cluster_set);
	command->cluster_set->auto_register = wanted->auto_register;
	command->cluster_set->keep_room = wanted->keep_room;
	api_propose(call, command, life ? cluster_life_set : cluster_applied);
}

/* --- boards --- */

int api_node_find(struct api_call *call, const char *name_or_id, Tb__Node **ret)
{
	struct store *s = api_store(call->api);
	int rv = store_node_find(s, name_or_id, ret);
	uint64_t id;

	if (rv == -ENOENT && text_to_u64(name_or_id, 1, UINT64_MAX, &id) == 0)
		rv = store_node_get(s, id, ret);
	if (rv == -ENOENT)
		api_problem(call, 404, "GET /v1/nodes lists names and ids",
			    "there is no board \"%s\"", name_or_id);
	else if (rv != 0)
		api_store_failed(call);
	return rv;
}

static void transferred(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	if (error != 0)
		api_problem_error(call, error, answer != NULL ? answer->message : NULL);
	else
		cluster_answer(call);
}

void api_cluster_transfer(struct api_call *call)
{
	const Tb__ClusterTransferRequest *request =
		(const Tb__ClusterTransferRequest *)call->request;
	Tb__PeerTransfer transfer = TB__PEER_TRANSFER__INIT;
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;
	Tb__Node *node;

	if (request->node[0] != '\0') {
		if (api_node_find(call, request->node, &node) != 0)
			return;
		transfer.node_id = node->id;
		tb__node__free_unpacked(node, NULL);
	}
	query.what_case = TB__PEER_QUERY__WHAT_TRANSFER;
	query.transfer = &transfer;
	api_query(call, &query, transferred);
}

static void node_fill(Tb__Node *node, const Tb__PeerAnswer *answer)
{
	for (size_t i = 0; answer != NULL && i < answer->n_nodes; i++) {
		const Tb__NodeStatusRow *row = answer->nodes[i];

		if (row->node_id != node->id || row->status == NULL)
			continue;
		tb__node_status__free_unpacked(node->status, NULL);
		node->status = (Tb__NodeStatus *)message_copy(&row->status->base);
	}
}

struct node_list {
	struct api_list out;
	const Tb__PeerAnswer *answer;
	uint64_t after;
	uint64_t last;
	uint64_t limit;
	bool more;
};

static int node_visit(void *arg, const Tb__Node *row)
{
	struct node_list *l = arg;
	Tb__Node *node;

	if (row->id <= l->after)
		return 0;
	l->more = l->out.count == l->limit;
	if (l->more)
		return 1;
	node = (Tb__Node *)message_copy(&row->base);
	node_fill(node, l->answer);
	api_list_item(&l->out, &node->base);
	tb__node__free_unpacked(node, NULL);
	l->last = row->id;
	return 0;
}

static void nodes_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	const struct api_value *limit = api_param(call, "limit");
	struct node_list l = {.answer = error == 0 ? answer : NULL,
			      .limit = limit->set ? limit->number : LIMIT_NODES};
	char *page = NULL;
	char *after;

	if (api_page_of_call(call, "nodes", &after) != 0)
		return;
	if (after != NULL)
		text_to_u64(after, 0, UINT64_MAX, &l.after);
	free(after);
	api_list_begin(&l.out);
	if (store_nodes(api_store(call->api), node_visit, &l) != 0) {
		buf_free(&l.out.text);
		api_store_failed(call);
		return;
	}
	if (l.more) {
		char *last = mem_printf("%llu", (unsigned long long)l.last);

		page = api_page_for_call(call, "nodes", last);
		free(last);
	}
	api_list_answer(&l.out, call, page, 0);
	free(page);
}

void api_nodes_list(struct api_call *call)
{
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	query.what_case = TB__PEER_QUERY__WHAT_CLUSTER;
	query.cluster = true;
	api_query(call, &query, nodes_answered);
}

static void node_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	Tb__Node *node;

	if (api_node_find(call, call->arg, &node) != 0)
		return;
	node_fill(node, error == 0 ? answer : NULL);
	api_answer_message(call, &node->base);
	tb__node__free_unpacked(node, NULL);
}

void api_node_get(struct api_call *call)
{
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	query.what_case = TB__PEER_QUERY__WHAT_CLUSTER;
	query.cluster = true;
	api_query(call, &query, node_answered);
}

/* The board is marked at once; its site nodes leave one after the other. */
static void node_drained(struct api_call *call, const Tb__CommandResult *result)
{
	(void)result;
	api_node_get(call);
}

static void node_drain(struct api_call *call, Tb__Drain drain)
{
	Tb__Command *command;
	Tb__Node *node;

	if (api_node_find(call, call->arg, &node) != 0)
		return;
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_NODE_DRAIN;
	command->node_drain = mem_alloc(sizeof(*command->node_drain));
	tb__node_drain__init(command->node_drain);
	command->node_drain->id = node->id;
	command->node_drain->drain = drain;
	tb__node__free_unpacked(node, NULL);
	api_propose(call, command, node_drained);
}

void api_node_set(struct api_call *call)
{
	const Tb__NodeSetRequest *request = (const Tb__NodeSetRequest *)call->request;
	Tb__Command *command;
	Tb__Node *node;

	if (api_node_find(call, call->arg, &node) != 0)
		return;
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_NODE_ZONE;
	command->node_zone = mem_alloc(sizeof(*command->node_zone));
	tb__node_zone__init(command->node_zone);
	command->node_zone->id = node->id;
	command->node_zone->zone = mem_strdup(request->zone);
	tb__node__free_unpacked(node, NULL);
	api_propose(call, command, node_drained);
}

void api_node_drain(struct api_call *call)
{
	const Tb__NodeDrainRequest *request = (const Tb__NodeDrainRequest *)call->request;

	node_drain(call, request->now ? TB__DRAIN__DRAIN_NOW : TB__DRAIN__DRAIN_GENTLE);
}

void api_node_undrain(struct api_call *call)
{
	node_drain(call, TB__DRAIN__DRAIN_OFF);
}

static void node_removed(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	Tb__Empty empty = TB__EMPTY__INIT;

	if (error != 0)
		api_problem_error(call, error, answer != NULL ? answer->message : NULL);
	else
		api_answer_message(call, &empty.base);
}

void api_node_delete(struct api_call *call)
{
	Tb__PeerRemove remove = TB__PEER_REMOVE__INIT;
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;
	Tb__Node *node;

	if (api_node_find(call, call->arg, &node) != 0)
		return;
	remove.node_id = node->id;
	remove.actor = call->who.actor;
	tb__node__free_unpacked(node, NULL);
	query.what_case = TB__PEER_QUERY__WHAT_REMOVE;
	query.remove = &remove;
	api_query(call, &query, node_removed);
}
