/* api_addresses.c: the pool of service addresses, and who has them. */
#include <stdlib.h>
#include <string.h>

#include "lib/ip.h"
#include "lib/mem.h"
#include "witnessd/api_call.h"

/* The address of the path in its usual form; false: the call is over. */
static bool address_of_path(struct api_call *call, char text[IP_TEXT])
{
	struct ip ip;

	if (ip_parse(call->arg, &ip) != 0) {
		api_problem(call, 404, "name one as in /v1/addresses/10.0.0.5",
			    "\"%s\" is no address", call->arg);
		return false;
	}
	ip_format(&ip, text);
	return true;
}

static void cluster_query(struct api_call *call, api_answered done)
{
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;

	query.what_case = TB__PEER_QUERY__WHAT_CLUSTER;
	query.cluster = true;
	api_query(call, &query, done);
}

/* Fills in what the leader says of it, if it does. */
static void status_fill(Tb__ServiceAddress *row, int error, const Tb__PeerAnswer *answer)
{
	for (size_t i = 0; error == 0 && i < answer->n_addresses; i++) {
		const Tb__ServiceAddress *seen = answer->addresses[i];

		if (strcmp(seen->address, row->address) != 0 || seen->status == NULL)
			continue;
		tb__address_status__free_unpacked(row->status, NULL);
		row->status = (Tb__AddressStatus *)message_copy(&seen->status->base);
	}
}

static void list_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	Tb__AddressList list = TB__ADDRESS_LIST__INIT;
	Tb__Cluster *cluster;

	if (store_cluster_get(api_store(call->api), &cluster) != 0) {
		api_store_failed(call);
		return;
	}
	for (size_t i = 0; i < cluster->n_addresses; i++)
		status_fill(cluster->addresses[i], error, answer);
	list.items = cluster->addresses;
	list.n_items = cluster->n_addresses;
	api_answer_message(call, &list.base);
	tb__cluster__free_unpacked(cluster, NULL);
}

void api_addresses_list(struct api_call *call)
{
	cluster_query(call, list_answered);
}

static void one_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	Tb__ServiceAddress *found = NULL;
	char text[IP_TEXT];
	Tb__Cluster *cluster;

	if (!address_of_path(call, text))
		return;
	if (store_cluster_get(api_store(call->api), &cluster) != 0) {
		api_store_failed(call);
		return;
	}
	for (size_t i = 0; i < cluster->n_addresses; i++)
		if (strcmp(cluster->addresses[i]->address, text) == 0)
			found = cluster->addresses[i];
	if (found != NULL) {
		status_fill(found, error, answer);
		api_answer_message(call, &found->base);
	} else {
		api_problem(call, 404, "GET /v1/addresses lists them",
			    "%s is no service address of this cluster", text);
	}
	tb__cluster__free_unpacked(cluster, NULL);
}

void api_address_get(struct api_call *call)
{
	cluster_query(call, one_answered);
}

static void address_applied(struct api_call *call, const Tb__CommandResult *result)
{
	(void)result;
	cluster_query(call, one_answered);
}

static int order_texts(const void *one, const void *two)
{
	return strcmp(*(char *const *)one, *(char *const *)two);
}

static Tb__ServiceAddress *address_wanted(struct api_call *call, const char *text)
{
	Tb__ServiceAddress *row = (Tb__ServiceAddress *)message_copy(call->request);

	api_field_set(&row->address, text);
	tb__address_status__free_unpacked(row->status, NULL);
	row->status = NULL;
	row->added_ms = 0;
	if (row->n_boards > 1)
		qsort(row->boards, row->n_boards, sizeof(row->boards[0]), order_texts);
	return row;
}

static bool status_has_interface(const Tb__NodeStatus *status, const char *interface)
{
	for (size_t i = 0; i < status->n_interfaces; i++)
		if (strcmp(status->interfaces[i], interface) == 0)
			return true;
	return false;
}

/* True: some board could have it now, or none has said what it has. Else what they have. */
static bool interface_is_there(const Tb__PeerAnswer *answer, const char *interface, struct store *s,
			       struct buf *ret_others)
{
	bool told = false;

	for (size_t i = 0; i < answer->n_nodes; i++) {
		const Tb__NodeStatusRow *row = answer->nodes[i];
		Tb__Node *node;

		if (row->status == NULL || !row->status->reachable)
			continue;
		if (status_has_interface(row->status, interface))
			return true;
		told |= row->status->n_interfaces > 0;
		if (store_node_get(s, row->node_id, &node) != 0)
			continue;
		buf_printf(ret_others, "%s%s has ", ret_others->len > 0 ? "; " : "", node->name);
		for (size_t k = 0; k < row->status->n_interfaces; k++)
			buf_printf(ret_others, "%s%s", k > 0 ? ", " : "",
				   row->status->interfaces[k]);
		if (row->status->n_interfaces == 0)
			buf_puts(ret_others, "none");
		tb__node__free_unpacked(node, NULL);
	}
	return !told;
}

static void put_answered(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	struct buf others = {0};
	Tb__ServiceAddress *row;
	Tb__Command *command;
	char text[IP_TEXT];
	char *message;

	if (error != 0) {
		api_problem_error(call, error, answer != NULL ? answer->message : NULL);
		return;
	}
	if (!address_of_path(call, text))
		return;
	row = address_wanted(call, text);
	if (!interface_is_there(answer, row->interface, api_store(call->api), &others)) {
		message = mem_printf("no board has an interface %s that is up: %s", row->interface,
				     buf_string(&others));
		api_problem_field(call, 422, "interface", message);
		free(message);
		buf_free(&others);
		tb__service_address__free_unpacked(row, NULL);
		return;
	}
	buf_free(&others);
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_ADDRESS_SET;
	command->address_set = mem_alloc(sizeof(*command->address_set));
	tb__address_set__init(command->address_set);
	command->address_set->address = row;
	api_propose(call, command, address_applied);
}

void api_address_put(struct api_call *call)
{
	const Tb__ServiceAddress *body = (const Tb__ServiceAddress *)call->request;
	struct apply_problem problem;
	Tb__ServiceAddress *row;
	char text[IP_TEXT];
	int rv;

	if (!address_of_path(call, text))
		return;
	if (body->address[0] != '\0' && strcmp(body->address, text) != 0 &&
	    strcmp(body->address, call->arg) != 0) {
		api_problem_field(call, 422, "address", "differs from the address in the path");
		return;
	}
	row = address_wanted(call, text);
	rv = service_address_check(row, &problem);
	tb__service_address__free_unpacked(row, NULL);
	if (rv != 0)
		api_problem_field(call, 422, problem.field, problem.message);
	else
		cluster_query(call, put_answered);
}

static void address_removed(struct api_call *call, const Tb__CommandResult *result)
{
	Tb__Empty empty = TB__EMPTY__INIT;

	(void)result;
	api_answer_message(call, &empty.base);
}

void api_address_delete(struct api_call *call)
{
	Tb__Command *command;
	char text[IP_TEXT];

	if (!address_of_path(call, text))
		return;
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_ADDRESS_REMOVE;
	command->address_remove = mem_alloc(sizeof(*command->address_remove));
	tb__address_remove__init(command->address_remove);
	command->address_remove->address = mem_strdup(text);
	api_propose(call, command, address_removed);
}
