#include "agent/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/address.h"
#include "lib/buf.h"
#include "lib/ini.h"
#include "lib/mem.h"
#include "lib/text.h"

enum { SITE_NAME_MAX = 64 };

enum key {
	KEY_SITE,
	KEY_NODE,
	KEY_BOARDS,
	KEY_PEERS,
	KEY_LISTEN,
	KEY_LEASE,
	KEY_STOP_TIME,
	KEY_ACQUIRE,
	KEY_ON_GAIN,
	KEY_ON_LOSS,
	KEY_ON_LOSS_FAILED,
	KEY_RUN_DIR,
	KEY_STATE_DIR,
	KEY_LOG_LEVEL,
};

static const char *const keys[] = {
	[KEY_SITE] = "site",
	[KEY_NODE] = "node",
	[KEY_BOARDS] = "boards",
	[KEY_PEERS] = "peers",
	[KEY_LISTEN] = "listen",
	[KEY_LEASE] = "lease",
	[KEY_STOP_TIME] = "stop-time",
	[KEY_ACQUIRE] = "acquire",
	[KEY_ON_GAIN] = "on-gain",
	[KEY_ON_LOSS] = "on-loss",
	[KEY_ON_LOSS_FAILED] = "on-loss-failed",
	[KEY_RUN_DIR] = "run-dir",
	[KEY_STATE_DIR] = "state-dir",
	[KEY_LOG_LEVEL] = "log-level",
	NULL,
};

static int text_set(char **field, const char *value)
{
	free(*field);
	*field = mem_strdup(value);
	return 0;
}

static int site_set(struct settings *s, const char *value, char **why)
{
	size_t len = strlen(value);

	if (len >= 1 && len <= SITE_NAME_MAX &&
	    strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
		    len)
		return text_set(&s->site, value);
	*why = mem_printf("\"%.80s\" is no site's name: 1 to %d letters, digits, dots, dashes and "
			  "underscores",
			  value, SITE_NAME_MAX);
	return -EINVAL;
}

static int node_set(uint32_t *node, const char *value, char **why)
{
	uint64_t number;

	if (text_to_u64(value, 1, UINT32_MAX, &number) != 0) {
		*why = mem_printf("\"%.40s\" is no node id; write a whole number from 1", value);
		return -EINVAL;
	}
	*node = (uint32_t)number;
	return 0;
}

/* An address with the default port if it has none; NULL: it is none. Owned by the caller. */
static char *address_complete(const char *text, unsigned port)
{
	const char *colon = strrchr(text, ':');
	bool has_port = colon != NULL && strchr(colon, ']') == NULL &&
			(text[0] == '[' || strchr(text, ':') == colon);
	struct address parsed;
	char *address;

	if (has_port)
		address = mem_strdup(text);
	else if (colon != NULL && text[0] != '[')
		address = mem_printf("[%s]:%u", text, port); /* a bare IPv6 address */
	else
		address = mem_printf("%s:%u", text, port);
	if (address_parse(address, &parsed) == 0 && parsed.kind != ADDRESS_ANY &&
	    parsed.socket.any.sa_family != AF_UNIX && parsed.port != 0)
		return address;
	free(address);
	return NULL;
}

/* The items of a list with commas or blanks, in turn; NULL at the end. */
static char *item_next(char **rest)
{
	char *item;

	do
		item = strsep(rest, ", \t");
	while (item != NULL && *item == '\0');
	return item;
}

static void boards_clear(struct settings *s)
{
	for (unsigned i = 0; i < WITNESS_AGENT_BOARDS; i++) {
		free(s->boards[i]);
		s->boards[i] = NULL;
	}
}

static int boards_set(struct settings *s, const char *value, char **why)
{
	char *copy = mem_strdup(value);
	char *rest = copy;
	char *item;
	unsigned count = 0;

	boards_clear(s);
	while (*why == NULL && (item = item_next(&rest)) != NULL) {
		if (count == WITNESS_AGENT_BOARDS) {
			*why = mem_printf("names more than %d boards", WITNESS_AGENT_BOARDS);
			break;
		}
		s->boards[count] = address_complete(item, SETTINGS_PORT);
		if (s->boards[count++] == NULL)
			*why = mem_printf(
				"\"%.100s\" is no address of a board; write HOST:PORT, as "
				"in 10.0.0.11:7443",
				item);
	}
	if (*why == NULL && count == 0)
		*why = mem_strdup("is empty; name every board, as in 10.0.0.11, 10.0.0.12");
	free(copy);
	return *why != NULL ? -EINVAL : 0;
}

static void peers_clear(struct settings *s)
{
	while (s->peer_count > 0)
		free(s->peers[--s->peer_count].address);
}

/* "2@10.1.0.2", "2@10.1.0.2:7444" or "2". */
static int peer_add(struct settings *s, char *item, char **why)
{
	char *at = strchr(item, '@');
	struct settings_peer peer = {0};

	if (at != NULL)
		*at = '\0';
	if (node_set(&peer.node, item, why) != 0)
		return -EINVAL;
	for (unsigned i = 0; i < s->peer_count; i++) {
		if (s->peers[i].node == peer.node) {
			*why = mem_printf("names node %u twice", peer.node);
			return -EINVAL;
		}
	}
	if (s->peer_count == WITNESS_AGENT_NODES - 1) {
		*why = mem_printf("names more than %d nodes", WITNESS_AGENT_NODES - 1);
		return -EINVAL;
	}
	if (at != NULL) {
		peer.address = address_complete(at + 1, SETTINGS_BEACON_PORT);
		if (peer.address == NULL) {
			*why = mem_printf("\"%.100s\" is no address of a node; write NODE@ADDRESS, "
					  "as in 2@10.1.0.2",
					  at + 1);
			return -EINVAL;
		}
	}
	s->peers[s->peer_count++] = peer;
	return 0;
}

static int peers_set(struct settings *s, const char *value, char **why)
{
	char *copy = mem_strdup(value);
	char *rest = copy;
	char *item;
	int rv = 0;

	peers_clear(s);
	while (rv == 0 && (item = item_next(&rest)) != NULL)
		rv = peer_add(s, item, why);
	free(copy);
	return rv;
}

static int listen_set(struct settings *s, const char *value, char **why)
{
	struct address parsed;

	if (address_parse(value, &parsed) == 0 && parsed.kind != ADDRESS_NAME &&
	    parsed.socket.any.sa_family != AF_UNIX)
		return text_set(&s->listen, value);
	*why = mem_printf("\"%.100s\" is no address of this host; write ADDRESS:PORT or *:PORT",
			  value);
	return -EINVAL;
}

static int duration_set(uint64_t *field, uint64_t min, uint64_t max, const char *value, char **why)
{
	uint64_t ms;

	if (text_to_duration_ms(value, &ms) != 0 || ms < min || ms > max) {
		*why = mem_printf("\"%.40s\" is not a time from %llums to %llus; write it with a "
				  "unit, as in 10s",
				  value, (unsigned long long)min, (unsigned long long)max / 1000);
		return -EINVAL;
	}
	*field = ms;
	return 0;
}

static int word_index(const char *const *words, const char *value, char **why)
{
	struct buf all = {0};
	int found = -EINVAL;

	for (int i = 0; words[i] != NULL; i++) {
		if (strcmp(words[i], value) == 0)
			found = i;
		buf_printf(&all, "%s%s", i > 0 ? ", " : "", words[i]);
	}
	if (found < 0)
		*why = mem_printf("\"%.40s\" is not one of: %s", value, buf_string(&all));
	buf_free(&all);
	return found;
}

static int command_set(char **field, const char *value, char **why)
{
	if (*value != '\0')
		return text_set(field, value);
	*why = mem_strdup("is empty; give a command, or leave the line out");
	return -EINVAL;
}

static int directory_set(char **field, const char *value, char **why)
{
	if (*value == '/')
		return text_set(field, value);
	*why = mem_strdup("must be an absolute path");
	return -EINVAL;
}

static int setting_set(void *arg, unsigned key, const char *value, char **why)
{
	static const char *const switches[] = {"off", "on", NULL};
	static const char *const levels[] = {"error", "warning", "notice", "info", "debug", NULL};
	struct settings *s = arg;
	int word;

	switch ((enum key)key) {
	case KEY_SITE:
		return site_set(s, value, why);
	case KEY_NODE:
		return node_set(&s->node, value, why);
	case KEY_BOARDS:
		return boards_set(s, value, why);
	case KEY_PEERS:
		return peers_set(s, value, why);
	case KEY_LISTEN:
		return listen_set(s, value, why);
	case KEY_LEASE:
		return duration_set(&s->lease_ms, 3000, 120000, value, why);
	case KEY_STOP_TIME:
		return duration_set(&s->stop_ms, 100, 60000, value, why);
	case KEY_ACQUIRE:
		word = word_index(switches, value, why);
		s->acquire = word > 0;
		return word < 0 ? word : 0;
	case KEY_ON_GAIN:
		return command_set(&s->on_gain, value, why);
	case KEY_ON_LOSS:
		return command_set(&s->on_loss, value, why);
	case KEY_ON_LOSS_FAILED:
		return command_set(&s->on_loss_failed, value, why);
	case KEY_RUN_DIR:
		return directory_set(&s->run_dir, value, why);
	case KEY_STATE_DIR:
		return directory_set(&s->state_dir, value, why);
	case KEY_LOG_LEVEL:
		word = word_index(levels, value, why);
		if (word >= 0)
			s->log_level = 3 + (unsigned)word;
		return word < 0 ? word : 0;
	}
	abort();
}

static struct ini settings_ini(struct settings *s)
{
	return (struct ini){
		.keys = keys, .manual = "witness-agent(8)", .set = setting_set, .arg = s};
}

void settings_init(struct settings *s)
{
	*s = (struct settings){.listen = mem_strdup("*:7444"),
			       .lease_ms = 10000,
			       .acquire = true,
			       .run_dir = mem_strdup("/run/witness-agent"),
			       .state_dir = mem_strdup("/var/lib/witness-agent"),
			       .log_level = 6};
}

void settings_free(struct settings *s)
{
	boards_clear(s);
	peers_clear(s);
	free(s->site);
	free(s->listen);
	free(s->on_gain);
	free(s->on_loss);
	free(s->on_loss_failed);
	free(s->run_dir);
	free(s->state_dir);
	*s = (struct settings){0};
}

int settings_parse(struct settings *s, const char *file_name, const char *text, size_t len,
		   char **ret_message)
{
	struct ini ini = settings_ini(s);

	return ini_parse(&ini, file_name, text, len, ret_message);
}

int settings_read(struct settings *s, const char *path, char **ret_message)
{
	struct ini ini = settings_ini(s);

	return ini_read(&ini, path, ret_message);
}

int settings_set(struct settings *s, const char *name, const char *value, char **ret_message)
{
	struct ini ini = settings_ini(s);

	return ini_set(&ini, name, value, ret_message);
}

int settings_check(const struct settings *s, char **ret_message)
{
	if (s->site == NULL || s->node == 0 || s->boards[0] == NULL) {
		*ret_message = mem_printf(
			"the setting \"%s\" is missing; \"witness-agent enroll\" writes what is "
			"needed",
			s->site == NULL ? "site"
			: s->node == 0	? "node"
					: "boards");
		return -EINVAL;
	}
	for (unsigned i = 0; i < s->peer_count; i++) {
		if (s->peers[i].node != s->node)
			continue;
		*ret_message =
			mem_printf("peers names node %u, which is this node itself", s->node);
		return -EINVAL;
	}
	if (s->stop_ms != 0 && s->stop_ms * 2 >= s->lease_ms) {
		*ret_message = mem_printf("stop-time must be less than half of lease (%llu ms)",
					  (unsigned long long)s->lease_ms);
		return -EINVAL;
	}
	if (s->on_loss_failed != NULL && s->on_loss == NULL) {
		*ret_message = mem_strdup("on-loss-failed is for when on-loss fails; set on-loss");
		return -EINVAL;
	}
	return 0;
}

static int node_order(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

size_t settings_nodes(const struct settings *s, uint32_t nodes[WITNESS_AGENT_NODES])
{
	size_t count = 0;

	nodes[count++] = s->node;
	for (unsigned i = 0; i < s->peer_count; i++)
		nodes[count++] = s->peers[i].node;
	qsort(nodes, count, sizeof(*nodes), node_order);
	return count;
}
