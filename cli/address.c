/* address.c: the pool of service addresses: those that move between the boards. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/grid.h"
#include "cli/run.h"
#include "cluster/apply.h"
#include "cluster/limits.h"
#include "lib/ip.h"
#include "lib/mem.h"
#include "lib/text.h"

static const char *state_word(const Tb__ServiceAddress *row)
{
	static const char *const words[] = {"unknown", "held",	 "taking", "leaving",
					    "waiting", "nobody", "taken"};
	unsigned state = row->status != NULL ? (unsigned)row->status->state : 0;

	return state < sizeof(words) / sizeof(words[0]) ? words[state] : "unknown";
}

static char *boards_text(const Tb__ServiceAddress *row)
{
	struct buf text = {0};
	char *copy;

	for (size_t i = 0; i < row->n_boards; i++)
		buf_printf(&text, "%s%s", i > 0 ? "," : "", row->boards[i]);
	copy = mem_strdup(row->n_boards > 0 ? buf_string(&text) : "any");
	buf_free(&text);
	return copy;
}

static void addresses_grid(const Tb__AddressList *list)
{
	static const char *const headers[] = {"ADDRESS", "INTERFACE", "STATE", "BOARD",
					      "BOARDS",	 "WHY",	      NULL};
	struct grid *g = grid_new(headers);

	for (size_t i = 0; i < list->n_items; i++) {
		const Tb__ServiceAddress *row = list->items[i];
		char *address = mem_printf("%s/%" PRIu32, row->address, row->prefix);
		char *boards = boards_text(row);

		grid_row(g, (const char *[]){address, row->interface, state_word(row),
					     row->status != NULL ? row->status->board : "", boards,
					     row->status != NULL ? row->status->reason : ""});
		free(address);
		free(boards);
	}
	grid_print(g, "No service addresses.");
}

static int addresses_print(struct invocation *inv, const void *message)
{
	const Tb__AddressList *list = message;

	if (api_output(inv) == OUTPUT_NAME)
		for (size_t i = 0; i < list->n_items; i++)
			puts(list->items[i]->address);
	else
		addresses_grid(list);
	return EXIT_OK;
}

int run_address_list(struct invocation *inv)
{
	return api_show(inv, "/v1/addresses", &tb__address_list__descriptor, addresses_print);
}

/* Splits "10.0.0.5/24"; the address in its usual form. EXIT_USAGE: told. */
static int address_read(const char *text, char ret_address[IP_TEXT], uint32_t *ret_prefix)
{
	const char *slash = strchr(text, '/');
	char address[IP_TEXT] = "";
	uint64_t prefix;
	struct ip ip;

	if (slash == NULL) {
		complain("\"%s\" lacks its prefix length: write it as in 10.0.0.5/24", text);
		return EXIT_USAGE;
	}
	if ((size_t)(slash - text) < sizeof(address))
		memcpy(address, text, (size_t)(slash - text));
	if (ip_parse(address, &ip) != 0 || text_to_u64(slash + 1, 1, 8 * ip.len, &prefix) != 0) {
		complain("\"%s\" is no address: write it as in 10.0.0.5/24 or fd00::5/64", text);
		return EXIT_USAGE;
	}
	ip_format(&ip, ret_address);
	*ret_prefix = (uint32_t)prefix;
	return EXIT_OK;
}

static int order_texts(const void *one, const void *two)
{
	return strcmp(*(char *const *)one, *(char *const *)two);
}

static void boards_read(const struct invocation *inv, Tb__ServiceAddress *row,
			char *boards[LIMIT_NODES])
{
	const char *board;

	row->boards = boards;
	while (row->n_boards < LIMIT_NODES &&
	       (board = option_nth(inv, "board", row->n_boards)) != NULL)
		boards[row->n_boards++] = (char *)(uintptr_t)board;
	if (row->n_boards > 1)
		qsort(boards, row->n_boards, sizeof(boards[0]), order_texts);
}

static int address_add(struct invocation *inv, const Tb__ServiceAddress *row)
{
	struct buf body = {0};
	char *path = api_path("/v1/addresses/", row->address, "");
	int rv = api_send(inv,
			  &(struct api_request){.method = "PUT",
						.path = path,
						.message = &row->base,
						.retry_ms = API_RETRY_MS},
			  &body);

	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
		api_print_json(&body);
	else if (rv == EXIT_OK && api_output(inv) == OUTPUT_NAME)
		puts(row->address);
	else if (rv == EXIT_OK)
		printf("service address %s/%" PRIu32 " goes to a board at once; \"witnessctl "
		       "address list\" shows which\n",
		       row->address, row->prefix);
	buf_free(&body);
	free(path);
	return rv;
}

int run_address_add(struct invocation *inv)
{
	Tb__ServiceAddress row = TB__SERVICE_ADDRESS__INIT;
	const char *interface = option_text(inv, "interface");
	char *boards[LIMIT_NODES];
	struct apply_problem problem;
	char address[IP_TEXT];

	if (address_read(inv->args[0], address, &row.prefix) != EXIT_OK)
		return EXIT_USAGE;
	row.address = address;
	if (interface != NULL)
		row.interface = (char *)(uintptr_t)interface;
	boards_read(inv, &row, boards);
	if (service_address_check(&row, &problem) != 0) {
		complain("%s: %s",
			 strcmp(problem.field, "interface") == 0 ? "--interface"
			 : strcmp(problem.field, "boards") == 0	 ? "--board"
								 : inv->args[0],
			 problem.message);
		return EXIT_USAGE;
	}
	return address_add(inv, &row);
}

int run_address_remove(struct invocation *inv)
{
	for (size_t i = 0; i < inv->arg_count; i++) {
		struct buf body = {0};
		char address[IP_TEXT];
		uint32_t prefix;
		char *path;
		int rv;

		/* With the prefix or without, as it was typed before. */
		if (strchr(inv->args[i], '/') == NULL)
			path = api_path("/v1/addresses/", inv->args[i], "");
		else if (address_read(inv->args[i], address, &prefix) == EXIT_OK)
			path = api_path("/v1/addresses/", address, "");
		else
			return EXIT_USAGE;
		rv = api_send(inv,
			      &(struct api_request){
				      .method = "DELETE", .path = path, .retry_ms = API_RETRY_MS},
			      &body);
		free(path);
		buf_free(&body);
		if (rv != EXIT_OK)
			return rv;
		if (api_output(inv) != OUTPUT_JSON)
			printf("%s is no service address any more\n", inv->args[i]);
	}
	return EXIT_OK;
}
