/* corosync-qnetd-tool: -s and -l as corosync-qnetd's own tool prints them, from the board's API. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/qnetd_text.h"

enum { CODE_OK = 0, CODE_USAGE = 1, CODE_INTERNAL = 2, CODE_CONNECT = 3, CODE_REFUSED = 4 };

static const struct command self = {.path = "corosync-qnetd-tool", .args = ""};
static const struct option_spec socket_option = {.name = "socket", .type = OPTION_FILE};

struct arguments {
	int operation; /* 's', 'l' or 0 */
	bool verbose;
	const char *cluster; /* only this one */
};

struct listing {
	const struct arguments *arguments;
	struct buf text; /* of -l */
	uint64_t clients;
	uint64_t clusters; /* with at least one client */
};

static int usage(void)
{
	printf("usage: %s [-Hhlsv] [-c cluster_name] [-p qnetd_ipc_socket_path]\n",
	       "corosync-qnetd-tool");
	return CODE_USAGE;
}

static int code_of(int rv)
{
	switch (rv) {
	case EXIT_OK:
		return CODE_OK;
	case EXIT_USAGE:
		return CODE_INTERNAL;
	case EXIT_UNREACHABLE:
		return CODE_CONNECT;
	default:
		return CODE_REFUSED;
	}
}

static int site_take(void *arg, const char *json, size_t len)
{
	struct listing *l = arg;
	const struct arguments *a = l->arguments;
	Tb__Site *site;
	int rv = api_decode(&tb__site__descriptor, json, len, &site);

	if (rv != EXIT_OK)
		return rv;
	if (site->status != NULL && site->status->n_nodes > 0 &&
	    (a->cluster == NULL || strcmp(a->cluster, site->name) == 0)) {
		l->clusters++;
		l->clients += site->status->n_nodes;
		qnetd_cluster_text(&l->text, site, a->verbose);
	}
	tb__site__free_unpacked(site, NULL);
	return EXIT_OK;
}

/* The port of this board's address for sites, on all addresses as the original shows it. */
static int address_find(struct invocation *inv, char address[32])
{
	Tb__LocalStatus *local;
	Tb__NodeList *nodes;
	int rv;

	snprintf(address, 32, "*:5403");
	rv = api_call(inv, &(struct api_request){.path = "/v1/local"},
		      &tb__local_status__descriptor, &local);
	if (rv != EXIT_OK)
		return rv;
	rv = api_call(inv, &(struct api_request){.path = "/v1/nodes"}, &tb__node_list__descriptor,
		      &nodes);
	if (rv == EXIT_OK) {
		for (size_t i = 0; i < nodes->n_items; i++) {
			const char *port = strrchr(nodes->items[i]->qnet_address, ':');

			if (nodes->items[i]->id == local->node_id && port != NULL)
				snprintf(address, 32, "*%.20s", port);
		}
		tb__node_list__free_unpacked(nodes, NULL);
	}
	tb__local_status__free_unpacked(local, NULL);
	return rv;
}

static int operation_run(struct invocation *inv, const struct arguments *a)
{
	struct listing l = {.arguments = a};
	char address[32];
	int rv = api_list(inv, "/v1/sites", site_take, &l);

	if (rv == EXIT_OK && a->operation == 's') {
		rv = address_find(inv, address);
		buf_clear(&l.text);
		if (rv == EXIT_OK)
			qnetd_status_text(&l.text, address, l.clients, l.clusters, a->verbose);
	}
	if (rv == EXIT_OK)
		fwrite(l.text.data, 1, l.text.len, stdout);
	buf_free(&l.text);
	return code_of(rv);
}

int main(int argc, char **argv)
{
	static struct invocation inv = {.command = &self};
	struct arguments a = {0};
	int letter, rv;

	signal(SIGPIPE, SIG_IGN);
	while ((letter = getopt(argc, argv, "Hhlsvc:p:")) != -1) {
		switch (letter) {
		case 'H':
		case 's':
		case 'l':
			a.operation = letter;
			break;
		case 'v':
			a.verbose = true;
			break;
		case 'c':
			a.cluster = optarg;
			break;
		case 'p':
			inv.options[0].spec = &socket_option;
			inv.options[0].value = optarg;
			inv.option_count = 1;
			break;
		default:
			return usage();
		}
	}
	if (a.operation == 0 || optind < argc)
		return usage();
	if (a.operation == 'H') {
		complain("witnessd is stopped by its service manager: systemctl stop witnessd");
		return CODE_REFUSED;
	}
	rv = operation_run(&inv, &a);
	client_free(inv.client);
	return rv;
}
