#include "cli/api.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/human.h"
#include "cli/objects.h"
#include "lib/hex.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "proto/json.h"

enum { PAGE = 1000, TOKEN_FILE_MAX = 4096 };

/* "@FILE" is the first line of that file, so that the token need not be on the command line. */
static char *token_read(const char *text)
{
	char line[TOKEN_FILE_MAX];
	FILE *file;

	if (text[0] != '@')
		return mem_strdup(text);
	file = fopen(text + 1, "re");
	if (file == NULL || fgets(line, sizeof(line), file) == NULL) {
		complain("cannot read a token from %s: %s", text + 1,
			 file == NULL ? strerror(errno) : "it is empty");
		if (file != NULL)
			fclose(file);
		return NULL;
	}
	fclose(file);
	line[strcspn(line, "\r\n")] = '\0';
	return mem_strdup(line);
}

static const char *first_of(const char *option, const char *variable)
{
	const char *value = option != NULL ? option : getenv(variable);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

/* A command may have a --token of its own that is no access token (cluster join). */
static const char *global_text(const struct invocation *inv, const char *name)
{
	const struct option_spec *spec = command_option(NULL, name);
	const char *value = NULL;

	for (size_t i = 0; i < inv->option_count; i++) {
		if (inv->options[i].spec == spec)
			value = inv->options[i].value;
	}
	return value;
}

static size_t servers_collect(const struct invocation *inv, const char *servers[CLIENT_SERVERS_MAX])
{
	size_t count = 0;

	while (count < CLIENT_SERVERS_MAX) {
		servers[count] = option_nth(inv, "server", count);
		if (servers[count] == NULL)
			break;
		count++;
	}
	/* A socket on the command line beats a server in the environment. */
	if (count == 0 && !option_given(inv, "socket")) {
		servers[0] = first_of(NULL, "TIEBREAK_SERVER");
		count = servers[0] != NULL ? 1 : 0;
	}
	return count;
}

struct client *api_client_new(const struct invocation *inv)
{
	const char *servers[CLIENT_SERVERS_MAX];
	struct client_options options = {
		.socket = first_of(option_text(inv, "socket"), "TIEBREAK_SOCKET"),
		.servers = servers,
		.server_count = servers_collect(inv, servers),
		.ca = global_text(inv, "ca"),
		.cert = global_text(inv, "cert"),
		.key = global_text(inv, "key"),
		.connect_timeout_ms = option_duration_ms(inv, "connect-timeout", 5000),
	};
	const char *token = first_of(global_text(inv, "token"), "TIEBREAK_TOKEN");
	char *token_text = NULL, *message = NULL;
	struct client *client = NULL;

	if (options.socket == NULL)
		options.socket = CLIENT_SOCKET;
	if (inv->command->local && option_given(inv, "server")) {
		complain("\"%s\" works only on the board itself, through its socket; leave out "
			 "--server and run it there",
			 inv->command->path);
		return NULL;
	}
	if (inv->command->local)
		options.server_count = 0;
	if (options.server_count > 0 && token != NULL) {
		token_text = token_read(token);
		if (token_text == NULL)
			return NULL;
		options.token = token_text;
	}
	if (client_new(&options, &client, &message) != 0)
		complain("%s", message);
	free(message);
	free(token_text);
	return client;
}

struct client *api_client(struct invocation *inv)
{
	if (inv->client == NULL)
		inv->client = api_client_new(inv);
	return inv->client;
}

enum output api_output(const struct invocation *inv)
{
	const char *word = option_text(inv, "output");

	if (word == NULL || strcmp(word, "table") == 0)
		return OUTPUT_TABLE;
	if (strcmp(word, "wide") == 0)
		return OUTPUT_WIDE;
	return strcmp(word, "json") == 0 ? OUTPUT_JSON : OUTPUT_NAME;
}

void api_print_json(const struct buf *body)
{
	fwrite(body->data, 1, body->len, stdout);
	if (body->len == 0 || body->data[body->len - 1] != '\n')
		fputc('\n', stdout);
}

static int exit_code(long status)
{
	switch (status) {
	case 404:
		return EXIT_NOT_FOUND;
	case 503:
	case 504:
		return EXIT_NO_QUORUM;
	default:
		return EXIT_REFUSED;
	}
}

/* The API's remedies speak of HTTP; these are the same in this program's words. */
static const char *remedy(const Tb__Problem *p)
{
	static const struct {
		const char *api, *ours;
	} remedies[] = {
		{"send \"Authorization: ",
		 "give --token (or TIEBREAK_TOKEN), or --cert, --key and --ca"},
		{"GET /v1/sites ", "witnessctl site list shows the names"},
		{"GET /v1/nodes ", "witnessctl node list shows names and ids"},
		{"GET /v1/images ", "witnessctl image list shows them"},
		{"GET /v1/vms ", "witnessctl vm list shows the names"},
		{"POST /v1/sites ", "witnessctl site create makes one"},
	};

	for (size_t i = 0; i < sizeof(remedies) / sizeof(remedies[0]); i++) {
		if (strncmp(p->remedy, remedies[i].api, strlen(remedies[i].api)) == 0)
			return remedies[i].ours;
	}
	return p->remedy;
}

static void print_problem(const Tb__Problem *p, const char *what)
{
	const char *head = p->detail[0] != '\0' ? p->detail : p->title;
	char *text = mem_printf("%s%s%s%s%s", what != NULL ? what : "", what != NULL ? ": " : "",
				head, remedy(p)[0] != '\0' ? "; " : "", remedy(p));

	human_safe(text);
	complain("%s", text);
	free(text);
	for (size_t i = 0; i < p->n_errors; i++) {
		if (p->n_errors == 1 && strstr(head, p->errors[i]->message) != NULL)
			continue; /* told already */
		text = mem_printf("%s: %s", p->errors[i]->field, p->errors[i]->message);
		human_safe(text);
		fprintf(stderr, "  %s\n", text);
		free(text);
	}
}

int api_refusal(const struct client_response *response, const char *what)
{
	struct json_error error;
	ProtobufCMessage *problem;

	if (json_decode(&tb__problem__descriptor, (const char *)response->body.data,
			response->body.len, &problem, &error) == 0) {
		print_problem((Tb__Problem *)problem, what);
		protobuf_c_message_free_unpacked(problem, NULL);
	} else {
		complain("%s%sthe server answered with HTTP status %ld", what != NULL ? what : "",
			 what != NULL ? ": " : "", response->status);
	}
	return exit_code(response->status);
}

int api_failure(const struct client *client, int rv)
{
	complain("%s", client_error(client));
	return rv == -EHOSTUNREACH ? EXIT_UNREACHABLE : EXIT_REFUSED;
}

int api_send(struct invocation *inv, const struct api_request *r, struct buf *ret)
{
	struct client *client = api_client(inv);
	struct client_response response = {0};
	struct buf body = {0};
	char key[33];
	struct client_request request = {
		.method = r->method != NULL ? r->method : "GET",
		.path = r->path,
		.content_type = r->content_type,
		.if_match = r->if_match,
		.idempotency_key = r->idempotency_key,
		.timeout_ms = r->timeout_ms,
		.retry_ms = r->retry_ms,
	};
	int rv;

	if (client == NULL)
		return EXIT_USAGE;
	if (r->message != NULL)
		json_encode(r->message, &body);
	else if (r->text != NULL)
		buf_puts(&body, r->text);
	if (body.len > 0) {
		request.body = body.data;
		request.body_len = body.len;
	}
	if (request.idempotency_key == NULL && strcmp(request.method, "POST") == 0) {
		api_random_key(key);
		request.idempotency_key = key;
	}
	rv = client_send(client, &request, &response);
	if (body.len > 0)
		mem_wipe(body.data, body.len); /* it may hold a join token */
	buf_free(&body);
	if (rv != 0) {
		rv = api_failure(client, rv);
	} else if (response.status >= 200 && response.status < 300) {
		*ret = response.body;
		return EXIT_OK;
	} else {
		rv = api_refusal(&response, NULL);
	}
	client_response_clear(&response);
	return rv;
}

int api_decode(const ProtobufCMessageDescriptor *type, const char *json, size_t len, void *ret)
{
	struct json_error error;
	int rv = json_decode(type, json, len, (ProtobufCMessage **)ret, &error);

	if (rv == 0)
		return EXIT_OK;
	complain("the server's answer cannot be read (%s%s%s); is it of a newer release? Use -o "
		 "json",
		 error.field, error.field[0] != '\0' ? ": " : "", error.message);
	return EXIT_REFUSED;
}

int api_call(struct invocation *inv, const struct api_request *request,
	     const ProtobufCMessageDescriptor *type, void *ret)
{
	struct buf body = {0};
	int rv = api_send(inv, request, &body);

	if (rv == EXIT_OK)
		rv = api_decode(type, (const char *)body.data, body.len, ret);
	buf_free(&body);
	return rv;
}

int api_show(struct invocation *inv, const char *path, const ProtobufCMessageDescriptor *type,
	     api_print print)
{
	ProtobufCMessage *message;
	struct buf body = {0};
	int rv = api_send(inv, &(struct api_request){.path = path}, &body);

	if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON) {
		api_print_json(&body);
	} else if (rv == EXIT_OK) {
		rv = api_decode(type, (const char *)body.data, body.len, &message);
		if (rv == EXIT_OK) {
			rv = print(inv, message);
			protobuf_c_message_free_unpacked(message, NULL);
		}
	}
	buf_free(&body);
	return rv;
}

struct lister {
	api_visit visit;
	void *arg;
};

static int item_take(void *arg, const struct object *object)
{
	struct lister *l = arg;

	return l->visit(l->arg, object->text, object->len);
}

/* Cuts one page; *next gets the page token behind it ("" at the end). */
static int page_take(struct lister *l, const struct buf *body, struct buf *next)
{
	struct objects objects;
	int rv;

	objects_init(&objects, item_take, l);
	objects.size_max = SIZE_MAX; /* client.h bounds the answer as a whole */
	rv = objects_feed(&objects, body->data, body->len);
	if (rv == 0)
		rv = objects_end(&objects);
	if (rv == -EINVAL) {
		complain("the server's answer is no list: %s", objects.error);
		rv = EXIT_REFUSED;
	}
	buf_clear(next);
	buf_puts(next, objects.next_page);
	objects_free(&objects);
	return rv;
}

int api_list(struct invocation *inv, const char *path, api_visit visit, void *arg)
{
	struct lister l = {visit, arg};
	struct buf next = {0}, url = {0};
	int rv;

	do {
		struct buf body = {0};

		buf_clear(&url);
		buf_printf(&url, "%s%climit=%d", path, strchr(path, '?') != NULL ? '&' : '?', PAGE);
		if (next.len > 0) {
			buf_puts(&url, "&page=");
			url_encode(&url, buf_string(&next));
		}
		rv = api_send(inv, &(struct api_request){.path = buf_string(&url)}, &body);
		if (rv == EXIT_OK)
			rv = page_take(&l, &body, &next);
		buf_free(&body);
	} while (rv == EXIT_OK && next.len > 0);
	buf_free(&url);
	buf_free(&next);
	return rv;
}

static int item_print(void *arg, const char *json, size_t len)
{
	bool *first = arg;

	fputs(*first ? "{\"items\":[" : ",", stdout);
	fwrite(json, 1, len, stdout);
	*first = false;
	return 0;
}

int api_list_json(struct invocation *inv, const char *path)
{
	bool first = true;
	int rv = api_list(inv, path, item_print, &first);

	if (rv != EXIT_OK && first)
		return rv; /* no half a text */
	fputs(first ? "{\"items\":[]}\n" : "]}\n", stdout);
	return rv;
}

char *api_path(const char *collection, const char *name, const char *suffix)
{
	struct buf path = {0};
	char *text;

	buf_puts(&path, collection);
	url_encode(&path, name);
	buf_puts(&path, suffix);
	text = mem_strdup(buf_string(&path));
	buf_free(&path);
	return text;
}

void api_random_key(char key[33])
{
	unsigned char random[16];

	rng_fill(random, sizeof(random));
	hex_encode(random, sizeof(random), key);
}

int api_confirm(const struct invocation *inv, const char *format, ...)
{
	char answer[16] = "";
	va_list args;

	if (option_given(inv, "yes"))
		return EXIT_OK;
	if (!isatty(STDIN_FILENO)) {
		complain("\"%s\" asks before it acts; without a terminal give --yes",
			 inv->command->path);
		return EXIT_USAGE;
	}
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs(" [y/N] ", stderr);
	if (fgets(answer, sizeof(answer), stdin) != NULL &&
	    (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0))
		return EXIT_OK;
	complain("nothing was changed");
	return EXIT_REFUSED;
}
