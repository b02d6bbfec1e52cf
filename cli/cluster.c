/* cluster.c: the cluster as a whole: init, join, status, remove, transfer, set. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/board.h"
#include "cli/grid.h"
#include "cli/human.h"
#include "cli/run.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { JOIN_TIMEOUT_MS = 600000, WAIT_DEFAULT_MS = 60000, POLL_MS = 250 };

/* "" and NULL are the same to the API. */
static char *text_or_empty(const struct invocation *inv, const char *option)
{
	const char *text = option_text(inv, option);

	return (char *)(text != NULL ? text : "");
}

int run_cluster_init(struct invocation *inv)
{
	Tb__ClusterInitRequest request = TB__CLUSTER_INIT_REQUEST__INIT;
	Tb__Cluster *cluster;
	struct buf body = {0};
	int rv;

	request.name = text_or_empty(inv, "name");
	request.node_name = text_or_empty(inv, "node-name");
	request.address = text_or_empty(inv, "advertise");
	request.qnet_address = text_or_empty(inv, "qnet-address");
	rv = api_send(inv,
		      &(struct api_request){.method = "POST",
					    .path = "/v1/cluster:init",
					    .message = &request.base,
					    .timeout_ms = JOIN_TIMEOUT_MS},
		      &body);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		api_print_json(&body);
	else if (rv == EXIT_OK)
		rv = api_decode(&tb__cluster__descriptor, (const char *)body.data, body.len,
				&cluster);
	if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON) {
		printf("cluster \"%s\" is made and this board serves it (id %s)\n", cluster->name,
		       cluster->id);
		printf("\nOne board alone is one failure away from silence. For each further "
		       "board, run\n\"witnessctl token create --role node\" here, and there what "
		       "that prints.\n");
		tb__cluster__free_unpacked(cluster, NULL);
	}
	buf_free(&body);
	return rv;
}

static char *with_port(const char *address)
{
	const char *end = address[0] == '[' ? strchr(address, ']') : address;

	if (end != NULL && strchr(end, ':') != NULL)
		return mem_strdup(address);
	return mem_printf("%s:%d", address, CLIENT_PORT);
}

int run_cluster_join(struct invocation *inv)
{
	Tb__ClusterJoinRequest request = TB__CLUSTER_JOIN_REQUEST__INIT;
	Tb__LocalStatus *local;
	struct buf body = {0};
	int rv;

	if (option_text(inv, "token") == NULL) {
		complain("--token is missing; make one on a board of the cluster: witnessctl token "
			 "create --role node");
		return EXIT_USAGE;
	}
	request.address = with_port(inv->args[0]);
	request.token = text_or_empty(inv, "token");
	request.node_name = text_or_empty(inv, "node-name");
	request.advertise = text_or_empty(inv, "advertise");
	request.qnet_address = text_or_empty(inv, "qnet-address");
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "joining through %s ...\n", request.address);
	rv = api_send(inv,
		      &(struct api_request){.method = "POST",
					    .path = "/v1/cluster:join",
					    .message = &request.base,
					    .timeout_ms = JOIN_TIMEOUT_MS},
		      &body);
	free(request.address);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		api_print_json(&body);
	else if (rv == EXIT_OK)
		rv = api_decode(&tb__local_status__descriptor, (const char *)body.data, body.len,
				&local);
	if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON) {
		printf("this board is now \"%s\" (node %" PRIu64
		       ") of the cluster and votes in it\n",
		       local->node_name, local->node_id);
		tb__local_status__free_unpacked(local, NULL);
	}
	buf_free(&body);
	return rv;
}

/* status */

struct view {
	Tb__LocalStatus *local;
	Tb__Cluster *cluster; /* NULL: the board is in none */
	Tb__NodeList *nodes;
};

static void view_free(struct view *v)
{
	if (v->local != NULL)
		tb__local_status__free_unpacked(v->local, NULL);
	if (v->cluster != NULL)
		tb__cluster__free_unpacked(v->cluster, NULL);
	if (v->nodes != NULL)
		tb__node_list__free_unpacked(v->nodes, NULL);
	memset(v, 0, sizeof(*v));
}

/* `quiet`: no answer, or a refusal, is told to nobody. */
static int view_fetch(struct invocation *inv, const char *path,
		      const ProtobufCMessageDescriptor *type, void *ret, bool quiet)
{
	struct client_request request = {.method = "GET", .path = path, .timeout_ms = 5000};
	struct client_response response = {0};
	struct json_error error;
	int rv = EXIT_REFUSED;

	if (!quiet)
		return api_call(inv, &(struct api_request){.path = path}, type, ret);
	if (client_send(inv->client, &request, &response) != 0)
		rv = EXIT_UNREACHABLE;
	else if (response.status == 200 &&
		 json_decode(type, (const char *)response.body.data, response.body.len,
			     (ProtobufCMessage **)ret, &error) == 0)
		rv = EXIT_OK;
	client_response_clear(&response);
	return rv;
}

static int view_get(struct invocation *inv, struct view *v, bool quiet)
{
	int rv;

	memset(v, 0, sizeof(*v));
	rv = view_fetch(inv, "/v1/local", &tb__local_status__descriptor, &v->local, quiet);
	if (rv != EXIT_OK || v->local->cluster_id[0] == '\0')
		return rv;
	rv = view_fetch(inv, "/v1/cluster", &tb__cluster__descriptor, &v->cluster, quiet);
	if (rv == EXIT_OK)
		rv = view_fetch(inv, "/v1/nodes", &tb__node_list__descriptor, &v->nodes, quiet);
	return rv;
}

/* One word for the whole: the cluster's state if there is one, else the board's. */
static const char *view_state(const struct view *v)
{
	if (v->cluster != NULL && v->cluster->status != NULL &&
	    v->cluster->status->state[0] != '\0')
		return v->cluster->status->state;
	return v->local->state;
}

static uint32_t nodes_reachable(const struct view *v)
{
	return v->cluster != NULL && v->cluster->status != NULL
		       ? v->cluster->status->nodes_reachable
		       : 0;
}

static void sites_line(const Tb__ClusterStatus *s)
{
	const struct {
		uint32_t count;
		const char *word;
	} parts[] = {
		{s->sites_whole, "whole"},     {s->sites_degraded, "degraded"},
		{s->sites_split, "split"},     {s->sites_undecided, "undecided"},
		{s->sites_offline, "offline"},
	};
	struct buf text = {0};
	char count[32];

	human_count(s->sites, count);
	buf_puts(&text, count);
	for (size_t i = 0, shown = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (parts[i].count == 0)
			continue;
		human_count(parts[i].count, count);
		buf_printf(&text, "%s%s %s", shown++ == 0 ? ": " : ", ", count, parts[i].word);
	}
	field_print("Sites", "%s", buf_string(&text));
	human_count(s->sessions, count);
	field_print("Site nodes", "%s attached", count);
	if (s->vms != 0)
		field_print("VMs", "%" PRIu32 " of %" PRIu32 " run", s->vms_running, s->vms);
	buf_free(&text);
}

static const char *node_state(const Tb__Node *n)
{
	if (n->role == TB__NODE_ROLE__NODE_ROLE_JOINING)
		return "joining";
	if (n->drain != TB__DRAIN__DRAIN_OFF && n->status != NULL && n->status->reachable)
		return n->status->sessions > 0 || n->status->leader ? "draining" : "drained";
	if (n->status != NULL && n->status->leader)
		return "leader";
	return n->status != NULL && n->status->reachable ? "voter" : "away";
}

static void nodes_grid(const Tb__NodeList *list, bool wide)
{
	static const char *const headers[] = {">ID",	     "NAME",	"STATE", "ADDRESS",
					      ">SITE NODES", "VERSION", NULL};
	static const char *const wide_headers[] = {
		">ID",		"NAME",	       "STATE",	   "ADDRESS",
		"QNET ADDRESS", ">SITE NODES", ">APPLIED", ">LEASE AGE",
		"JOINED",	"VERSION",     NULL};
	struct grid *g = grid_new(wide ? wide_headers : headers);

	for (size_t i = 0; i < list->n_items; i++) {
		const Tb__Node *n = list->items[i];
		char id[24], sessions[16] = "", applied[24] = "", age[24] = "", joined[32];

		snprintf(id, sizeof(id), "%" PRIu64, n->id);
		if (n->status != NULL) {
			snprintf(sessions, sizeof(sessions), "%" PRIu32, n->status->sessions);
			snprintf(applied, sizeof(applied), "%" PRIu64, n->status->applied_index);
			snprintf(age, sizeof(age), "%" PRIu32 " ms", n->status->lease_age_ms);
		}
		human_time(n->joined_ms, joined);
		if (wide)
			grid_row(g, (const char *[]){id, n->name, node_state(n), n->address,
						     n->qnet_address, sessions, applied, age,
						     joined, n->version});
		else
			grid_row(g, (const char *[]){id, n->name, node_state(n), n->address,
						     sessions, n->version});
	}
	grid_print(g, "No boards.");
}

static void boards_line(const Tb__ClusterStatus *s)
{
	char drained[32] = "";

	if (s->nodes_drained > 0)
		snprintf(drained, sizeof(drained), ", %" PRIu32 " drained", s->nodes_drained);
	field_print("Boards", "%" PRIu32 " of %" PRIu32 " reachable%s", s->nodes_reachable,
		    s->nodes, drained);
}

static const char *rotation_text(const Tb__Cluster *cluster)
{
	switch (cluster->ca_rotation) {
	case TB__CA_ROTATION__CA_ROTATION_TRUST:
		return "being rotated: waiting until every board believes the new one";
	case TB__CA_ROTATION__CA_ROTATION_OVERLAP:
		return "rotated; the old one is believed until \"cluster rotate-ca --finish\"";
	default:
		return "";
	}
}

static const char *site_rotation_text(const Tb__Cluster *cluster)
{
	return cluster->site_ca_rotation == TB__CA_ROTATION__CA_ROTATION_NONE
		       ? ""
		       : "rotated; the old one is believed until \"cluster rotate-ca --sites "
			 "--finish\"";
}

enum { ALARMS_SHOWN = 10 };

/* Sentences by themselves: what is wrong, and the remedy. */
static void alarms_print(const Tb__Cluster *cluster)
{
	size_t shown = cluster->n_alarms < ALARMS_SHOWN ? cluster->n_alarms : ALARMS_SHOWN;

	for (size_t i = 0; i < shown; i++)
		field_print(i == 0 ? "Alarms" : "", "%s", cluster->alarms[i]->message);
	if (cluster->n_alarms > shown)
		field_print("", "and %zu more: -o json shows them", cluster->n_alarms - shown);
}

static void view_print(const struct view *v, bool wide)
{
	const Tb__ClusterStatus *s = v->cluster != NULL ? v->cluster->status : NULL;

	if (v->cluster == NULL) {
		field_color("State", v->local->state);
		field_print("Detail", "%s", v->local->detail);
		field_print("Version", "%s", v->local->version);
		return;
	}
	field_print("Cluster", "%s", v->cluster->name);
	if (s != NULL) {
		field_color("State", s->state);
		field_print("Leader", "%s", s->leader_name[0] != '\0' ? s->leader_name : "none");
		boards_line(s);
		sites_line(s);
		if (s->addresses > 0)
			field_print("Addresses", "%" PRIu32 " of %" PRIu32 " at a board",
				    s->addresses_held, s->addresses);
		field_print("Asked", "%s, version %s", s->node, s->version);
	}
	if (v->local->detail[0] != '\0')
		field_print("This board", "%s", v->local->detail);
	if (v->cluster->auto_register)
		field_print("Auto-register",
			    "on: unknown sites are created when they first attach");
	if (s != NULL && s->level != 0 && s->level < s->level_here)
		field_print("Upgrade",
			    "under way: what is new is off until every board runs the new release");
	if (v->cluster->ca_rotation != TB__CA_ROTATION__CA_ROTATION_NONE)
		field_print("CA", "%s", rotation_text(v->cluster));
	if (v->cluster->site_ca_rotation != TB__CA_ROTATION__CA_ROTATION_NONE)
		field_print("Sites' CA", "%s", site_rotation_text(v->cluster));
	if (wide) {
		field_print("Id", "%s", v->cluster->id);
		field_print("CA", "sha256 %s", v->cluster->ca_sha256);
		if (s != NULL)
			field_print("Log", "term %" PRIu64 ", applied %" PRIu64, s->term,
				    s->applied_index);
	}
	alarms_print(v->cluster);
	putchar('\n');
	nodes_grid(v->nodes, wide);
}

static bool wait_is_over(const struct invocation *inv, const struct view *v)
{
	const char *wanted = option_text(inv, "wait");
	uint64_t nodes = option_number(inv, "nodes", 0);

	if (nodes != 0 && nodes_reachable(v) < nodes)
		return false;
	return wanted == NULL || strcmp(view_state(v), wanted) == 0 ||
	       strcmp(v->local->state, wanted) == 0;
}

/* What a wait saw last, for the one who waited in vain. */
static void wait_seen(const struct invocation *inv, const struct view *v, int rv, char text[700])
{
	if (v->cluster != NULL && v->cluster->status != NULL)
		snprintf(text, 700,
			 "the cluster is \"%s\", %" PRIu32 " of %" PRIu32 " boards reachable",
			 view_state(v), v->cluster->status->nodes_reachable,
			 v->cluster->status->nodes);
	else if (v->local != NULL)
		snprintf(text, 700, "the board is \"%s\"", v->local->state);
	else
		snprintf(text, 700, "%s",
			 rv == EXIT_UNREACHABLE ? client_error(inv->client)
						: "the board did not answer");
}

/* Asks until the state is as wanted. While it waits, no answer is no error. */
static int status_wait(struct invocation *inv)
{
	uint64_t limit = option_duration_ms(inv, "timeout", WAIT_DEFAULT_MS);
	uint64_t until = clock_boottime_ms() + limit;
	char duration[64], seen[700];
	bool over = false;

	if (api_client(inv) == NULL)
		return EXIT_USAGE;
	while (!over) {
		struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
		struct view v;
		int rv = view_get(inv, &v, true);

		over = rv == EXIT_OK && wait_is_over(inv, &v);
		wait_seen(inv, &v, rv, seen);
		view_free(&v);
		if (!over && clock_boottime_ms() >= until) {
			human_duration(limit, duration);
			complain("waited %s in vain: %s", duration, seen);
			return EXIT_NO_QUORUM;
		}
		if (!over)
			nanosleep(&pause, NULL);
	}
	return EXIT_OK;
}

/* The cluster as the server says it; the boards are in "node list -o json". */
static int status_json(struct invocation *inv)
{
	struct buf body = {0};
	Tb__Cluster *cluster;
	int rv = api_send(inv, &(struct api_request){.path = "/v1/cluster"}, &body);

	if (rv == EXIT_OK) {
		api_print_json(&body);
		rv = api_decode(&tb__cluster__descriptor, (const char *)body.data, body.len,
				&cluster);
	}
	if (rv == EXIT_OK) {
		if (cluster->status != NULL && strcmp(cluster->status->state, "no-quorum") == 0)
			rv = EXIT_NO_QUORUM;
		tb__cluster__free_unpacked(cluster, NULL);
	}
	buf_free(&body);
	return rv;
}

int run_cluster_status(struct invocation *inv)
{
	struct view v;
	int rv = EXIT_OK;

	if (option_given(inv, "wait") || option_given(inv, "nodes"))
		rv = status_wait(inv);
	if (rv != EXIT_OK)
		return rv;
	if (api_output(inv) == OUTPUT_JSON)
		return status_json(inv);
	rv = view_get(inv, &v, false);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_NAME)
		puts(v.cluster != NULL ? v.cluster->name : "");
	else if (rv == EXIT_OK)
		view_print(&v, api_output(inv) == OUTPUT_WIDE);
	if (rv == EXIT_OK && strcmp(view_state(&v), "no-quorum") == 0)
		rv = EXIT_NO_QUORUM;
	view_free(&v);
	return rv;
}

/* remove, transfer, set */

int run_cluster_remove(struct invocation *inv)
{
	struct buf body = {0};
	char *path;
	int rv = api_confirm(inv,
			     "Remove board \"%s\" from the cluster? It stops serving and its data "
			     "becomes useless.",
			     inv->args[0]);

	if (rv != EXIT_OK)
		return rv;
	path = api_path("/v1/nodes/", inv->args[0], "");
	rv = api_send(inv,
		      &(struct api_request){.method = "DELETE",
					    .path = path,
					    .timeout_ms = 60000,
					    .retry_ms = API_RETRY_MS},
		      &body);
	if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON)
		printf("board \"%s\" removed\n", inv->args[0]);
	buf_free(&body);
	free(path);
	return rv;
}

int run_cluster_transfer(struct invocation *inv)
{
	Tb__ClusterTransferRequest request = TB__CLUSTER_TRANSFER_REQUEST__INIT;
	Tb__Cluster *cluster;
	struct buf body = {0};
	int rv;

	request.node = inv->arg_count > 0 ? inv->args[0] : (char *)"";
	rv = api_send(
		inv,
		&(struct api_request){
			.method = "POST", .path = "/v1/cluster:transfer", .message = &request.base},
		&body);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON) {
		api_print_json(&body);
	} else if (rv == EXIT_OK) {
		rv = api_decode(&tb__cluster__descriptor, (const char *)body.data, body.len,
				&cluster);
		if (rv == EXIT_OK) {
			const Tb__ClusterStatus *s = cluster->status;

			printf("the leader is now %s\n", s != NULL && s->leader_name[0] != '\0'
								 ? s->leader_name
								 : "being elected");
			tb__cluster__free_unpacked(cluster, NULL);
		}
	}
	buf_free(&body);
	return rv;
}

int run_cluster_set(struct invocation *inv)
{
	const char *word = option_text(inv, "auto-register");
	const char *room = option_text(inv, "keep-room");
	uint64_t life_ms = option_duration_ms(inv, "certificate-life", 0);
	struct buf body = {0};
	struct buf patch = {0};
	char duration[64];
	int rv;

	if (word == NULL && room == NULL && !option_given(inv, "certificate-life")) {
		complain("nothing to set; usage: witnessctl cluster set [--auto-register on|off] "
			 "[--certificate-life TIME] [--keep-room on|off]");
		return EXIT_USAGE;
	}
	buf_putc(&patch, '{');
	if (word != NULL)
		buf_printf(&patch, "\"autoRegister\":%s",
			   strcmp(word, "on") == 0 ? "true" : "false");
	if (option_given(inv, "certificate-life"))
		buf_printf(&patch, "%s\"certificateLifeMs\":\"%" PRIu64 "\"",
			   word != NULL ? "," : "", life_ms);
	if (room != NULL)
		buf_printf(&patch, "%s\"keepRoom\":\"%s\"", patch.len > 1 ? "," : "", room);
	buf_putc(&patch, '}');
	rv = api_send(inv,
		      &(struct api_request){.method = "PATCH",
					    .path = "/v1/cluster",
					    .text = buf_string(&patch),
					    .retry_ms = API_RETRY_MS},
		      &body);
	human_duration(life_ms, duration);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON) {
		api_print_json(&body);
	} else if (rv == EXIT_OK) {
		if (word != NULL)
			printf("auto-register is %s\n", word);
		if (room != NULL)
			printf("keep-room is %s\n", room);
		if (option_given(inv, "certificate-life"))
			printf("certificates of boards and API clients live %s from now on\n",
			       duration);
	}
	buf_free(&patch);
	buf_free(&body);
	return rv;
}

static const char *rotate_question(const Tb__ClusterRotateCaRequest *request)
{
	if (request->sites)
		return request->finish ? "Stop believing the old CA of the sites? Nodes whose "
					 "certificate is from before the rotation lose the witness."
				       : "Make a new CA for the sites?";
	return request->finish ? "Stop believing the old CA? Client certificates and tokens that "
				 "were made before the rotation end."
			       : "Make a new CA for boards and API clients?";
}

int run_cluster_rotate_ca(struct invocation *inv)
{
	Tb__ClusterRotateCaRequest request = TB__CLUSTER_ROTATE_CA_REQUEST__INIT;
	struct buf body = {0};
	Tb__Cluster *cluster;
	int rv;

	request.finish = option_given(inv, "finish");
	request.sites = option_given(inv, "sites");
	request.force = option_given(inv, "force");
	rv = api_confirm(inv, "%s", rotate_question(&request));
	if (rv == EXIT_OK)
		rv = api_send(inv,
			      &(struct api_request){.method = "POST",
						    .path = "/v1/cluster:rotate-ca",
						    .message = &request.base,
						    .retry_ms = API_RETRY_MS},
			      &body);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON) {
		api_print_json(&body);
	} else if (rv == EXIT_OK) {
		rv = api_decode(&tb__cluster__descriptor, (const char *)body.data, body.len,
				&cluster);
		if (rv == EXIT_OK) {
			printf("the %s is %s\n", request.sites ? "sites' CA" : "CA",
			       request.finish  ? "the new one alone"
			       : request.sites ? site_rotation_text(cluster)
					       : rotation_text(cluster));
			tb__cluster__free_unpacked(cluster, NULL);
		}
	}
	buf_free(&body);
	return rv;
}

/* nodes */

int run_node_list(struct invocation *inv)
{
	Tb__NodeList *list;
	int rv;

	if (api_output(inv) == OUTPUT_JSON)
		return api_list_json(inv, "/v1/nodes");
	rv = api_call(inv, &(struct api_request){.path = "/v1/nodes"}, &tb__node_list__descriptor,
		      &list);
	if (rv != EXIT_OK)
		return rv;
	if (api_output(inv) == OUTPUT_NAME) {
		for (size_t i = 0; i < list->n_items; i++)
			puts(list->items[i]->name);
	} else {
		nodes_grid(list, api_output(inv) == OUTPUT_WIDE);
	}
	tb__node_list__free_unpacked(list, NULL);
	return EXIT_OK;
}

static void host_print(const Tb__NodeHost *host)
{
	struct buf bridges = {0};
	char memory[32];

	if (host == NULL)
		return;
	if (!host->hosts) {
		field_print("VMs", "none here: %s", host->why_not);
		return;
	}
	for (size_t i = 0; i < host->n_bridges; i++)
		buf_printf(&bridges, "%s%s", i > 0 ? ", " : "", host->bridges[i]);
	human_count(host->memory_mib, memory);
	field_print("For VMs", "%" PRIu32 " cores, %s MiB", host->vcpus, memory);
	field_print("Bridges", "%s", bridges.len > 0 ? buf_string(&bridges) : "none");
	buf_free(&bridges);
}

/* What a VM takes on its board: it may have been made smaller since it was placed. */
static void vm_takes(const Tb__Vm *vm, uint64_t *memory_mib, uint64_t *vcpus)
{
	const Tb__VmPlacement *p = vm->placement;
	const Tb__VmConfig *c = vm->config;

	*memory_mib += p->most_memory_mib > c->memory_mib ? p->most_memory_mib : c->memory_mib;
	*vcpus += p->most_vcpus > c->vcpus ? p->most_vcpus : c->vcpus;
}

/* What it has of that. */
static void node_vms_print(const Tb__Node *n, const Tb__VmList *vms)
{
	struct buf names = {0};
	uint64_t memory_mib = 0;
	uint64_t vcpus = 0;
	char memory[32];
	size_t count = 0;

	for (size_t i = 0; i < vms->n_items; i++) {
		const Tb__Vm *vm = vms->items[i];

		if (vm->placement == NULL || vm->placement->node != n->id)
			continue;
		buf_printf(&names, "%s%s", count > 0 ? ", " : "", vm->name);
		vm_takes(vm, &memory_mib, &vcpus);
		count++;
	}
	human_count(memory_mib, memory);
	if (count > 0)
		field_print("VMs", "%s (%" PRIu64 " vCPU%s, %s MiB)", buf_string(&names), vcpus,
			    vcpus == 1 ? "" : "s", memory);
	else if (n->host != NULL && n->host->hosts)
		field_print("VMs", "none at the moment");
	buf_free(&names);
}

static void node_print(const Tb__Node *n)
{
	char joined[32], ago[64], age[64];

	human_time(n->joined_ms, joined);
	human_relative(n->joined_ms, clock_realtime_ms(), ago);
	field_print("Name", "%s", n->name);
	field_print("Id", "%" PRIu64, n->id);
	field_print("State", "%s", node_state(n));
	field_print("Address", "%s", n->address);
	field_print("QNet address", "%s", n->qnet_address);
	field_print("Joined", "%s, %s", joined, ago);
	field_print("Version", "%s", n->version);
	if (n->zone[0] != '\0')
		field_print("Zone", "%s", n->zone);
	host_print(n->host);
	if (n->status == NULL)
		return;
	human_duration(n->status->lease_age_ms, age);
	field_print("Lease", "renewed %s ago", age);
	field_print("Site nodes", "%" PRIu32 " attached", n->status->sessions);
	field_print("Log", "applied %" PRIu64 ", longest write lately %" PRIu32 " ms",
		    n->status->applied_index, n->status->disk_ms);
	field_print("Round trip", "to the leader, longest lately %" PRIu32 " ms",
		    n->status->rtt_ms);
	for (size_t i = 0; i < n->status->n_addresses; i++)
		field_print(i == 0 ? "Addresses" : "", "%s", n->status->addresses[i]);
	if (n->status->address_problem[0] != '\0')
		field_print("Addresses", "none: %s", n->status->address_problem);
	if (n->status->wear_percent != 0)
		field_print("Card", "%" PRIu32 " %% of its life used", n->status->wear_percent);
	if (n->status->board != NULL)
		board_print(n->status->board);
}

static int node_show(struct invocation *inv, const Tb__Node *node)
{
	Tb__VmList *vms;
	int rv = api_call(inv, &(struct api_request){.path = "/v1/vms"}, &tb__vm_list__descriptor,
			  &vms);

	if (rv != EXIT_OK)
		return rv;
	node_print(node);
	node_vms_print(node, vms);
	tb__vm_list__free_unpacked(vms, NULL);
	return EXIT_OK;
}

int run_node_show(struct invocation *inv)
{
	char *path = api_path("/v1/nodes/", inv->args[0], "");
	struct buf body = {0};
	Tb__Node *node;
	int rv = api_send(inv, &(struct api_request){.path = path}, &body);

	free(path);
	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON) {
		api_print_json(&body);
	} else if (rv == EXIT_OK) {
		rv = api_decode(&tb__node__descriptor, (const char *)body.data, body.len, &node);
		if (rv == EXIT_OK) {
			if (api_output(inv) == OUTPUT_NAME)
				puts(node->name);
			else
				rv = node_show(inv, node);
			tb__node__free_unpacked(node, NULL);
		}
	}
	buf_free(&body);
	return rv;
}
