/* completion.c: what may stand at the end of a half-typed command line. The shell's script is thin:
 * it hands the words over, and everything else is found in the command table or asked of the
 * server, which has little time for the answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/help.h"
#include "cli/run.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { ASK_TIMEOUT_MS = 300, ASK_LIMIT = 100 };

static const char bash_script[] =
	"# bash completion for witnessctl\n"
	"_witnessctl() {\n"
	"	local words=(\"${COMP_WORDS[@]:1:COMP_CWORD}\") line\n"
	"	COMPREPLY=()\n"
	"	while IFS= read -r line; do\n"
	"		if [[ $line == :files ]]; then\n"
	"			compopt -o default 2>/dev/null\n"
	"		else\n"
	"			COMPREPLY+=(\"$line\")\n"
	"		fi\n"
	"	done < <(witnessctl __complete -- \"${words[@]}\" 2>/dev/null)\n"
	"}\n"
	"complete -F _witnessctl witnessctl\n";

int run_completion(struct invocation *inv)
{
	if (strcmp(inv->args[0], "bash") != 0) {
		complain("there is a script for bash only");
		return EXIT_USAGE;
	}
	fputs(bash_script, stdout);
	return EXIT_OK;
}

int run_help(struct invocation *inv)
{
	char path[128] = "";
	bool group = false;

	for (size_t i = 0; i < inv->arg_count; i++) {
		size_t used = strlen(path);

		snprintf(path + used, sizeof(path) - used, "%s%s", i > 0 ? " " : "", inv->args[i]);
	}
	for (const struct command_group *g = command_groups; g->name != NULL; g++)
		group = group || strcmp(g->name, path) == 0;
	if (command_find(path) == NULL && !group) {
		complain("no command \"%s\"; see witnessctl help", path);
		return EXIT_USAGE;
	}
	help_print(stdout, path, command_find(path));
	return EXIT_OK;
}

int run_manual(struct invocation *inv)
{
	(void)inv;
	help_manual(stdout);
	return EXIT_OK;
}

static void offer(const char *candidate, const char *word)
{
	if (strncmp(candidate, word, strlen(word)) == 0)
		puts(candidate);
}

static void offer_options(const struct option_spec *options, const char *word)
{
	for (; options != NULL && options->name != NULL; options++) {
		char *text = mem_printf("--%s", options->name);

		offer(text, word);
		free(text);
	}
}

/* Asks quietly and with little patience. */
static void offer_from_server(struct invocation *inv, const char *path, const char *word,
			      const ProtobufCMessageDescriptor *type)
{
	struct client *client = api_client(inv);
	struct client_request request = {
		.method = "GET", .path = path, .timeout_ms = ASK_TIMEOUT_MS};
	struct client_response response = {0};
	struct json_error error;
	ProtobufCMessage *list;

	if (client != NULL && client_send(client, &request, &response) == 0 &&
	    response.status == 200 &&
	    json_decode(type, (const char *)response.body.data, response.body.len, &list, &error) ==
		    0) {
		if (type == &tb__site_list__descriptor) {
			const Tb__SiteList *sites = (const Tb__SiteList *)list;

			for (size_t i = 0; i < sites->n_items; i++)
				offer(sites->items[i]->name, word);
		} else if (type == &tb__node_list__descriptor) {
			const Tb__NodeList *nodes = (const Tb__NodeList *)list;

			for (size_t i = 0; i < nodes->n_items; i++)
				offer(nodes->items[i]->name, word);
		} else if (type == &tb__image_list__descriptor) {
			const Tb__ImageList *images = (const Tb__ImageList *)list;

			for (size_t i = 0; i < images->n_items; i++)
				offer(images->items[i]->name, word);
		} else if (type == &tb__vm_list__descriptor) {
			const Tb__VmList *vms = (const Tb__VmList *)list;

			for (size_t i = 0; i < vms->n_items; i++)
				offer(vms->items[i]->name, word);
		} else if (type == &tb__address_list__descriptor) {
			const Tb__AddressList *addresses = (const Tb__AddressList *)list;

			for (size_t i = 0; i < addresses->n_items; i++)
				offer(addresses->items[i]->address, word);
		} else {
			const Tb__TokenList *tokens = (const Tb__TokenList *)list;

			for (size_t i = 0; i < tokens->n_items; i++)
				offer(tokens->items[i]->id, word);
		}
		protobuf_c_message_free_unpacked(list, NULL);
	}
	client_response_clear(&response);
}

static void offer_kind(struct invocation *inv, enum complete kind, const char *word)
{
	struct buf path = {0};

	switch (kind) {
	case COMPLETE_FILE:
		puts(":files");
		break;
	case COMPLETE_SITE:
		buf_printf(&path, "/v1/sites?limit=%d&prefix=", ASK_LIMIT);
		url_encode(&path, word);
		offer_from_server(inv, buf_string(&path), word, &tb__site_list__descriptor);
		break;
	case COMPLETE_NODE:
		offer_from_server(inv, "/v1/nodes", word, &tb__node_list__descriptor);
		break;
	case COMPLETE_TOKEN:
		offer_from_server(inv, "/v1/tokens", word, &tb__token_list__descriptor);
		break;
	case COMPLETE_IMAGE:
		offer_from_server(inv, "/v1/images", word, &tb__image_list__descriptor);
		break;
	case COMPLETE_VM:
		offer_from_server(inv, "/v1/vms", word, &tb__vm_list__descriptor);
		break;
	case COMPLETE_ADDRESS:
		offer_from_server(inv, "/v1/addresses", word, &tb__address_list__descriptor);
		break;
	case COMPLETE_NONE:
		break;
	}
	buf_free(&path);
}

static void offer_value(struct invocation *inv, const struct option_spec *spec, const char *word)
{
	for (size_t i = 0; spec->words != NULL && spec->words[i] != NULL; i++)
		offer(spec->words[i], word);
	offer_kind(inv, spec->complete, word);
}

/* The words that may follow `path`, each once. */
static void offer_words(const char *path, const char *word)
{
	size_t len = strlen(path);
	char last[32] = "";

	for (const struct command *c = commands; c->path != NULL; c++) {
		const char *rest = c->path;
		char next[32];

		if (len > 0) {
			if (strncmp(c->path, path, len) != 0 || c->path[len] != ' ')
				continue;
			rest = c->path + len + 1;
		}
		snprintf(next, sizeof(next), "%.*s", (int)strcspn(rest, " "), rest);
		/* The table keeps a group together. */
		if (next[0] != '_' && strcmp(next, last) != 0)
			offer(next, word);
		memcpy(last, next, sizeof(last));
	}
}

/* What the words before the last one say. */
struct half_typed {
	char path[64];
	const struct command *command;
	const struct option_spec *open; /* an option that waits for its value */
};

static const struct option_spec *option_of_word(const struct half_typed *h, const char *word)
{
	if (strncmp(word, "--", 2) == 0)
		return strchr(word, '=') == NULL ? command_option(h->command, word + 2) : NULL;
	for (const struct option_spec *s = h->command != NULL ? h->command->options : NULL;
	     word[0] == '-' && word[1] != '\0' && word[2] == '\0' && s != NULL && s->name != NULL;
	     s++) {
		if (s->letter == word[1])
			return s;
	}
	for (const struct option_spec *s = global_options;
	     word[0] == '-' && word[1] != '\0' && word[2] == '\0' && s->name != NULL; s++) {
		if (s->letter == word[1])
			return s;
	}
	return NULL;
}

/* Server and socket of the half-typed line are used for asking. */
static void option_keep(struct invocation *inv, const struct option_spec *spec, char *value)
{
	if (inv->option_count == INVOCATION_OPTIONS_MAX)
		return;
	inv->options[inv->option_count].spec = spec;
	inv->options[inv->option_count].value = value;
	inv->option_count++;
}

static void word_follow(struct invocation *inv, struct half_typed *h, char *word)
{
	size_t len = strlen(h->path);

	if (h->open != NULL) {
		option_keep(inv, h->open, word);
		h->open = NULL;
		return;
	}
	if (word[0] == '-') {
		const struct option_spec *spec = option_of_word(h, word);

		if (spec != NULL && spec->type != OPTION_FLAG)
			h->open = spec;
		return;
	}
	if (h->command != NULL)
		return;
	snprintf(h->path + len, sizeof(h->path) - len, "%s%s", len > 0 ? " " : "", word);
	h->command = command_find(h->path);
}

int run_complete(struct invocation *inv)
{
	struct half_typed h = {.path = ""};
	size_t count = inv->arg_count;
	char *word;

	if (count == 0)
		return EXIT_OK;
	word = inv->args[count - 1];
	for (size_t i = 0; i + 1 < count; i++)
		word_follow(inv, &h, inv->args[i]);
	if (h.open != NULL) {
		offer_value(inv, h.open, word);
	} else if (word[0] == '-') {
		if (h.command != NULL)
			offer_options(h.command->options, word);
		offer_options(global_options, word);
	} else if (h.command == NULL) {
		offer_words(h.path, word);
	} else if (strcmp(h.command->path, "help") == 0) {
		offer_words("", word);
	} else {
		offer_kind(inv, h.command->complete, word);
	}
	return EXIT_OK;
}
