/* token.c: tokens: what a new board, a program or a person shows to be let in. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/enroll.h"
#include "cli/grid.h"
#include "cli/human.h"
#include "cli/run.h"
#include "lib/clock.h"
#include "proto/json.h"

enum { TTL_DEFAULT_MS = 3600000 };

/* Where the answering board is reached by others, "BOARD:7443" if that cannot be learnt. */
static void board_address(struct invocation *inv, char address[300])
{
	struct client_request local = {.method = "GET", .path = "/v1/local"};
	struct client_request nodes = {.method = "GET", .path = "/v1/nodes"};
	struct client_response response = {0};
	struct json_error error;
	ProtobufCMessage *message;
	uint64_t id = 0;

	snprintf(address, 300, "BOARD:%d", CLIENT_PORT);
	if (client_send(inv->client, &local, &response) == 0 && response.status == 200 &&
	    json_decode(&tb__local_status__descriptor, (const char *)response.body.data,
			response.body.len, &message, &error) == 0) {
		id = ((Tb__LocalStatus *)message)->node_id;
		protobuf_c_message_free_unpacked(message, NULL);
	}
	if (id != 0 && client_send(inv->client, &nodes, &response) == 0 && response.status == 200 &&
	    json_decode(&tb__node_list__descriptor, (const char *)response.body.data,
			response.body.len, &message, &error) == 0) {
		const Tb__NodeList *list = (const Tb__NodeList *)message;

		for (size_t i = 0; i < list->n_items; i++) {
			if (list->items[i]->id == id)
				snprintf(address, 300, "%s", list->items[i]->address);
		}
		protobuf_c_message_free_unpacked(message, NULL);
	}
	client_response_clear(&response);
}

static void created_print(struct invocation *inv, const Tb__TokenCreated *created, Tb__Role role)
{
	const Tb__Token *t = created->token;
	/* A script's log is no place for it. */
	const char *shown = isatty(STDERR_FILENO) ? created->secret : "TOKEN";
	char expires[64], address[300];

	human_relative(t->expires_ms, clock_realtime_ms(), expires);
	board_address(inv, address);
	printf("%s\n", created->secret);
	fflush(stdout);
	fprintf(stderr, "\nThis token is shown once and is not stored. It expires %s", expires);
	if (t->max_uses > 0)
		fprintf(stderr, ", after %" PRIu32 " use%s", t->max_uses,
			t->max_uses == 1 ? "" : "s");
	fprintf(stderr, ". Revoke it with: witnessctl token revoke %s\n", t->id);
	if (role == TB__ROLE__ROLE_NODE)
		fprintf(stderr, "On the new board:\n  witnessctl cluster join %s --token %s\n",
			address, shown);
	else if (role == TB__ROLE__ROLE_AGENT)
		fprintf(stderr,
			"On each node of the site, with its own number:\n"
			"  witness-agent enroll --board %s --site %s --node 1 --token %s\n",
			address, t->site, shown);
	else
		fprintf(stderr,
			"Use it as:\n  TIEBREAK_TOKEN=%s witnessctl --server https://%s status\n",
			shown, address);
}

/* Asks for a token at `path` and shows it. */
static int token_post(struct invocation *inv, const char *path, const ProtobufCMessage *request,
		      Tb__Role role)
{
	Tb__TokenCreated *created;
	struct buf body = {0};
	int rv = api_send(inv,
			  &(struct api_request){.method = "POST",
						.path = path,
						.message = request,
						.retry_ms = API_RETRY_MS},
			  &body);

	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON) {
		api_print_json(&body);
	} else if (rv == EXIT_OK) {
		rv = api_decode(&tb__token_created__descriptor, (const char *)body.data, body.len,
				&created);
		if (rv == EXIT_OK && (api_output(inv) == OUTPUT_NAME || created->token == NULL))
			printf("%s\n", created->secret);
		else if (rv == EXIT_OK)
			created_print(inv, created, role);
		if (rv == EXIT_OK)
			tb__token_created__free_unpacked(created, NULL);
	}
	buf_free(&body);
	return rv;
}

static int token_make(struct invocation *inv, const Tb__TokenRequest *request)
{
	return token_post(inv, "/v1/tokens", &request->base, request->role);
}

int run_node_replace(struct invocation *inv)
{
	Tb__NodeReplaceRequest request = TB__NODE_REPLACE_REQUEST__INIT;
	char *path = api_path("/v1/nodes/", inv->args[0], ":replace");
	int rv;

	request.ttl_ms = option_duration_ms(inv, "ttl", TTL_DEFAULT_MS);
	rv = token_post(inv, path, &request.base, TB__ROLE__ROLE_NODE);
	free(path);
	return rv;
}

int token_make_agent(struct invocation *inv, const char *site)
{
	Tb__TokenRequest request = TB__TOKEN_REQUEST__INIT;

	request.role = TB__ROLE__ROLE_AGENT;
	request.site = (char *)site;
	request.ttl_ms = TTL_DEFAULT_MS;
	return token_make(inv, &request);
}

int run_token_create(struct invocation *inv)
{
	Tb__TokenRequest request = TB__TOKEN_REQUEST__INIT;
	struct json_error error;
	bool of_site;
	int role;

	if (option_text(inv, "role") == NULL) {
		complain("--role is missing: viewer, operator, admin, node, site or agent");
		return EXIT_USAGE;
	}
	if (json_enum_parse(&tb__role__descriptor, option_text(inv, "role"), &role, &error) != 0)
		abort(); /* the table allows only words of this enum */
	request.role = (Tb__Role)role;
	request.name = (char *)(option_given(inv, "name") ? option_text(inv, "name") : "");
	request.site = (char *)(option_given(inv, "site") ? option_text(inv, "site") : "");
	of_site = role == TB__ROLE__ROLE_SITE || role == TB__ROLE__ROLE_AGENT;
	if (of_site != (request.site[0] != '\0')) {
		complain(of_site ? "--role %s needs --site NAME"
				 : "--site goes with --role site and --role agent, not with %s",
			 option_text(inv, "role"));
		return EXIT_USAGE;
	}
	request.tenant = (char *)(option_given(inv, "tenant") ? option_text(inv, "tenant") : "");
	request.ttl_ms = option_duration_ms(inv, "ttl", TTL_DEFAULT_MS);
	request.max_uses =
		(uint32_t)option_number(inv, "uses", role == TB__ROLE__ROLE_NODE ? 1 : 0);
	return token_make(inv, &request);
}

static const char *token_state(const Tb__Token *t, int64_t now_ms)
{
	if (t->revoked)
		return "revoked";
	if (t->expires_ms != 0 && t->expires_ms <= now_ms)
		return "expired";
	if (t->max_uses != 0 && t->uses >= t->max_uses)
		return "used";
	return "good";
}

static int row_take(void *arg, const char *json, size_t len)
{
	int64_t now = clock_realtime_ms();
	char role[64], uses[40], expires[64], created[32];
	Tb__Token *t;
	int rv = api_decode(&tb__token__descriptor, json, len, &t);

	if (rv != EXIT_OK)
		return rv;
	if (t->max_uses != 0)
		snprintf(uses, sizeof(uses), "%" PRIu32 " of %" PRIu32, t->uses, t->max_uses);
	else
		snprintf(uses, sizeof(uses), "%" PRIu32, t->uses);
	human_relative(t->expires_ms, now, expires);
	human_time(t->created_ms, created);
	if (arg == NULL)
		puts(t->id);
	else
		grid_row(arg,
			 (const char *[]){t->id, t->name,
					  json_enum_word(&tb__role__descriptor, (int)t->role, role),
					  token_state(t, now), uses, expires, t->site, created,
					  t->created_by});
	tb__token__free_unpacked(t, NULL);
	return EXIT_OK;
}

int run_token_list(struct invocation *inv)
{
	static const char *const headers[] = {"ID",	 "NAME", "ROLE",    "STATE",	  "USES",
					      "EXPIRES", "SITE", "CREATED", "CREATED BY", NULL};
	struct grid *grid;
	int rv;

	if (api_output(inv) == OUTPUT_JSON)
		return api_list_json(inv, "/v1/tokens");
	if (api_output(inv) == OUTPUT_NAME)
		return api_list(inv, "/v1/tokens", row_take, NULL);
	grid = grid_new(headers);
	rv = api_list(inv, "/v1/tokens", row_take, grid);
	grid_print(grid, rv == EXIT_OK ? "No tokens." : NULL);
	return rv;
}

int run_token_revoke(struct invocation *inv)
{
	int rv = EXIT_OK;

	for (size_t i = 0; rv == EXIT_OK && i < inv->arg_count; i++) {
		char *path = api_path("/v1/tokens/", inv->args[i], "");
		struct buf body = {0};

		rv = api_send(inv,
			      &(struct api_request){
				      .method = "DELETE", .path = path, .retry_ms = API_RETRY_MS},
			      &body);
		if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON)
			printf("token %s revoked\n", inv->args[i]);
		buf_free(&body);
		free(path);
	}
	return rv;
}
