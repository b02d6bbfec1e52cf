#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "cli/trust.h"
#include "lib/clock.h"
#include "lib/mem.h"

enum { ANSWER_MAX = 256 << 20, PAUSE_MS = 300, STREAM_SILENCE_S = 45 };

struct client {
	CURL *curl;
	struct trust *trust;
	char *socket;
	char *servers[CLIENT_SERVERS_MAX]; /* "https://host:port"; one "http://localhost" for a
					      socket */
	size_t server_count;
	size_t current;
	bool answered; /* by any of them, ever */
	char *authorization;
	char *cert, *key;
	long connect_timeout_ms;
	char error[600];
	char curl_error[CURL_ERROR_SIZE];
};

/* One attempt in progress. */
struct exchange {
	struct client *client;
	struct client_response *response;
	client_take take; /* NULL: collect all */
	void *arg;
	bool too_large;
	bool taker_ended;
};

static char *server_url(const char *text, size_t len, char **message)
{
	char *word = mem_strndup(text, len);
	const char *host = word, *end;
	bool port;
	char *url;

	if (strncmp(host, "https://", 8) == 0)
		host += 8;
	else if (strstr(host, "://") != NULL) {
		*message = mem_printf("--server %s: only https:// is spoken", word);
		free(word);
		return NULL;
	}
	len = strlen(host);
	while (len > 0 && host[len - 1] == '/')
		len--;
	if (len == 0 || strcspn(host, "/?#@ ") < len) {
		*message =
			mem_printf("--server %s: write it as https://host:%d", word, CLIENT_PORT);
		free(word);
		return NULL;
	}
	end = host[0] == '[' ? strchr(host, ']') : host;
	port = end != NULL && strchr(end, ':') != NULL;
	url = port ? mem_printf("https://%.*s", (int)len, host)
		   : mem_printf("https://%.*s:%d", (int)len, host, CLIENT_PORT);
	free(word);
	return url;
}

static int servers_add(struct client *c, const char *list, char **message)
{
	while (*list != '\0') {
		size_t len = strcspn(list, ",");

		if (len > 0) {
			if (c->server_count == CLIENT_SERVERS_MAX) {
				*message = mem_printf("more than %d servers", CLIENT_SERVERS_MAX);
				return -EINVAL;
			}
			c->servers[c->server_count] = server_url(list, len, message);
			if (c->servers[c->server_count] == NULL)
				return -EINVAL;
			c->server_count++;
		}
		list += len;
		if (*list == ',')
			list++;
	}
	return 0;
}

/* tb1.<id 16 hex>.<secret 64 hex>.<sha256 of the CA, 64 hex> */
static const char *token_pin(const char *token)
{
	static const size_t lengths[] = {3, 16, 64, 64};
	const char *part = token, *pin = NULL;

	for (size_t i = 0; i < 4; i++) {
		size_t len = strcspn(part, ".");

		if (len != lengths[i] || (part[len] == '.') != (i < 3))
			return NULL;
		pin = part;
		part += len + 1;
	}
	return strncmp(token, "tb1.", 4) == 0 ? pin : NULL;
}

static int client_trust(struct client *c, const struct client_options *o, char **message)
{
	const char *pin = NULL;

	if (o->token != NULL) {
		pin = token_pin(o->token);
		if (pin == NULL) {
			*message = mem_printf(
				"the token is not whole; it begins with \"tb1.\" and has "
				"four parts");
			return -EINVAL;
		}
		c->authorization = mem_printf("Authorization: Bearer %s", o->token);
	}
	if (o->ca == NULL && pin == NULL) {
		*message =
			mem_printf("whom to believe? A remote server needs --token, or --ca with "
				   "--cert and --key");
		return -EINVAL;
	}
	if ((o->cert == NULL) != (o->key == NULL)) {
		*message = mem_printf("--cert and --key go together");
		return -EINVAL;
	}
	return trust_new(pin, o->ca, &c->trust, message);
}

int client_new(const struct client_options *o, struct client **ret, char **message)
{
	struct client *c = mem_zalloc(sizeof(*c));
	int rv = 0;

	for (size_t i = 0; rv == 0 && i < o->server_count; i++)
		rv = servers_add(c, o->servers[i], message);
	if (rv == 0 && c->server_count > 0)
		rv = client_trust(c, o, message);
	if (rv != 0) {
		client_free(c);
		return rv;
	}
	if (c->server_count == 0) {
		c->socket = mem_strdup(o->socket);
		c->servers[c->server_count++] = mem_strdup("http://localhost");
	}
	c->cert = o->cert != NULL ? mem_strdup(o->cert) : NULL;
	c->key = o->key != NULL ? mem_strdup(o->key) : NULL;
	c->connect_timeout_ms = (long)o->connect_timeout_ms;
	curl_global_init(CURL_GLOBAL_DEFAULT);
	c->curl = curl_easy_init();
	if (c->curl == NULL)
		abort();
	*ret = c;
	return 0;
}

void client_free(struct client *c)
{
	if (c == NULL)
		return;
	if (c->curl != NULL)
		curl_easy_cleanup(c->curl);
	trust_free(c->trust);
	if (c->authorization != NULL)
		mem_wipe(c->authorization, strlen(c->authorization));
	free(c->authorization);
	for (size_t i = 0; i < c->server_count; i++)
		free(c->servers[i]);
	free(c->socket);
	free(c->cert);
	free(c->key);
	free(c);
}

const char *client_error(const struct client *c)
{
	return c->error;
}

const char *client_server(const struct client *c)
{
	return c->socket != NULL ? c->socket : c->servers[c->current];
}

void client_next_server(struct client *c)
{
	c->current = (c->current + 1) % c->server_count;
}

void client_response_clear(struct client_response *r)
{
	buf_free(&r->body);
	memset(r, 0, sizeof(*r));
}

static size_t body_take(char *data, size_t size, size_t count, void *arg)
{
	struct exchange *x = arg;
	size_t len = size * count;
	long status = 0;

	if (x->take != NULL) {
		curl_easy_getinfo(x->client->curl, CURLINFO_RESPONSE_CODE, &status);
		if (status == 200) {
			x->taker_ended = x->take(x->arg, data, len) != 0;
			return x->taker_ended ? 0 : len;
		}
	}
	if (x->response->body.len + len > ANSWER_MAX) {
		x->too_large = true;
		return 0;
	}
	buf_append(&x->response->body, data, len);
	return len;
}

/* Copies the value if the header line has this name. */
static bool header_is(const char *line, size_t len, const char *name, char *value, size_t size)
{
	size_t name_len = strlen(name);

	if (len <= name_len || strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
		return false;
	line += name_len + 1;
	len -= name_len + 1;
	while (len > 0 && *line == ' ') {
		line++;
		len--;
	}
	while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
		len--;
	snprintf(value, size, "%.*s", (int)len, line);
	return true;
}

static size_t header_take(char *line, size_t size, size_t count, void *arg)
{
	struct exchange *x = arg;
	size_t len = size * count;
	char value[80];

	if (header_is(line, len, "ETag", value, sizeof(value)))
		memcpy(x->response->etag, value, sizeof(value));
	else if (header_is(line, len, "Content-Type", value, sizeof(value)))
		memcpy(x->response->content_type, value, sizeof(value));
	return len;
}

static CURLcode context_made(CURL *curl, void *ssl_ctx, void *arg)
{
	(void)curl;
	trust_install(arg, ssl_ctx);
	return CURLE_OK;
}

static struct curl_slist *header_add(struct curl_slist *list, const char *name, const char *value)
{
	char *line;

	if (value == NULL)
		return list;
	line = mem_printf("%s: %s", name, value);
	list = curl_slist_append(list, line);
	free(line);
	return list;
}

static struct curl_slist *headers_new(const struct client *c, const struct client_request *r)
{
	struct curl_slist *list = NULL;

	if (c->authorization != NULL && c->socket == NULL)
		list = curl_slist_append(list, c->authorization);
	list = curl_slist_append(list, "Expect:"); /* no 100-continue round trip */
	if (r->body != NULL)
		list = header_add(list, "Content-Type",
				  r->content_type != NULL ? r->content_type : "application/json");
	list = header_add(list, "If-Match", r->if_match);
	list = header_add(list, "Idempotency-Key", r->idempotency_key);
	return header_add(list, "Last-Event-ID", r->last_event_id);
}

static void transfer_set_up(struct client *c, const struct client_request *r, struct exchange *x)
{
	CURL *h = c->curl;

	curl_easy_reset(h); /* keeps the connections */
	c->curl_error[0] = '\0';
	curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->curl_error);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(h, CURLOPT_USERAGENT, "witnessctl/" TIEBREAK_VERSION);
	curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, r->method);
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, c->connect_timeout_ms);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, body_take);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, header_take);
	curl_easy_setopt(h, CURLOPT_HEADERDATA, x);
	if (x->take != NULL && r->quiet) {
		curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
	} else if (x->take != NULL) {
		curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
		curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)STREAM_SILENCE_S);
	} else {
		curl_easy_setopt(h, CURLOPT_TIMEOUT_MS,
				 (long)(r->timeout_ms != 0 ? r->timeout_ms : 30000));
	}
	if (r->body != NULL) {
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, r->body);
	} else if (strcmp(r->method, "POST") == 0) {
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE, 0L);
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, "");
	}
	if (c->socket != NULL) {
		curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, c->socket);
		curl_easy_setopt(h, CURLOPT_NOPROXY, "*");
		return;
	}
	curl_easy_setopt(h, CURLOPT_CAINFO, NULL);
	curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L); /* trust.h says what is checked instead */
	curl_easy_setopt(h, CURLOPT_SSL_CTX_FUNCTION, context_made);
	curl_easy_setopt(h, CURLOPT_SSL_CTX_DATA, c->trust);
	if (c->cert != NULL) {
		curl_easy_setopt(h, CURLOPT_SSLCERT, c->cert);
		curl_easy_setopt(h, CURLOPT_SSLKEY, c->key);
	}
}

static void explain_socket(struct client *c, long os_errno)
{
	if (os_errno == EACCES || os_errno == EPERM)
		snprintf(c->error, sizeof(c->error),
			 "no permission for %s; only root may use the board's socket (or use "
			 "--server)",
			 c->socket);
	else
		snprintf(c->error, sizeof(c->error),
			 "cannot reach witnessd at %s: %s; is it running here (systemctl status "
			 "witnessd)? For a board elsewhere give --server",
			 c->socket, os_errno != 0 ? strerror((int)os_errno) : c->curl_error);
}

static void explain(struct client *c, CURLcode code)
{
	long os_errno = 0;

	curl_easy_getinfo(c->curl, CURLINFO_OS_ERRNO, &os_errno);
	if (c->socket != NULL && code == CURLE_COULDNT_CONNECT) {
		explain_socket(c, os_errno);
		return;
	}
	if (c->trust != NULL && trust_refusal(c->trust)[0] != '\0' &&
	    (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR)) {
		snprintf(c->error, sizeof(c->error), "%s is not believed: %s", client_server(c),
			 trust_refusal(c->trust));
		return;
	}
	snprintf(c->error, sizeof(c->error), "no answer from %s: %s", client_server(c),
		 c->curl_error[0] != '\0' ? c->curl_error : curl_easy_strerror(code));
}

/* One attempt at the current server. */
static int attempt(struct client *c, const struct client_request *r, struct exchange *x)
{
	char *url = mem_printf("%s%s", c->servers[c->current], r->path);
	struct curl_slist *headers = headers_new(c, r);
	CURLcode code;

	client_response_clear(x->response);
	transfer_set_up(c, r, x);
	curl_easy_setopt(c->curl, CURLOPT_URL, url);
	curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers);
	code = curl_easy_perform(c->curl);
	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &x->response->status);
	curl_slist_free_all(headers);
	free(url);
	if (code == CURLE_OK || x->taker_ended)
		return 0;
	if (x->too_large) {
		snprintf(c->error, sizeof(c->error), "the answer of %s is larger than %d MiB",
			 client_server(c), ANSWER_MAX >> 20);
		return -EMSGSIZE;
	}
	explain(c, code);
	return -EHOSTUNREACH;
}

static void pause_ms(uint64_t ms)
{
	struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

int client_send(struct client *c, const struct client_request *r, struct client_response *ret)
{
	struct exchange x = {.client = c, .response = ret};
	uint64_t until = clock_boottime_ms() + r->retry_ms;
	size_t tries = 0;

	for (;;) {
		int rv = attempt(c, r, &x);
		uint64_t now;

		tries++;
		c->answered = c->answered || rv == 0;
		if (rv == -EMSGSIZE || (rv == 0 && ret->status != 503))
			return rv;
		if (c->server_count > 1)
			client_next_server(c);
		if (tries % c->server_count != 0)
			continue;
		now = clock_boottime_ms();
		if (now >= until || !c->answered)
			return rv;
		pause_ms(until - now < PAUSE_MS ? until - now : PAUSE_MS);
	}
}

int client_stream(struct client *c, const struct client_request *r, client_take take, void *arg,
		  struct client_response *ret)
{
	struct exchange x = {.client = c, .response = ret, .take = take, .arg = arg};

	return attempt(c, r, &x);
}

void url_encode(struct buf *out, const char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;

		if ((byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
		    (byte >= 'A' && byte <= 'Z') || strchr("-._~", byte) != NULL)
			buf_putc(out, (char)byte);
		else
			buf_printf(out, "%%%02X", byte);
	}
}
