#include "witnessd/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "board/watchdog.h"
#include "lib/buf.h"
#include "lib/ini.h"
#include "lib/mem.h"
#include "lib/text.h"

struct config_key {
	const char *name; /* "section.key" */
	int (*set)(struct config *c, const struct config_key *key, const char *value, char **why);
	size_t offset;
	uint64_t min, max;
};

static int set_text(struct config *c, const struct config_key *key, const char *value, char **why)
{
	char **field = (char **)((char *)c + key->offset);

	if (*value == '\0') {
		*why = mem_strdup("is empty; leave the line out for the default");
		return -EINVAL;
	}
	free(*field);
	*field = mem_strdup(value);
	return 0;
}

static int set_path(struct config *c, const struct config_key *key, const char *value, char **why)
{
	if (value[0] != '/') {
		*why = mem_strdup("must be an absolute path such as /var/lib/tiebreak");
		return -EINVAL;
	}
	return set_text(c, key, value, why);
}

static int set_watchdog(struct config *c, const struct config_key *key, const char *value,
			char **why)
{
	(void)key;
	if (strcmp(value, "off") != 0 && value[0] != '/') {
		*why = mem_strdup("must be off or the path of a watchdog such as /dev/watchdog");
		return -EINVAL;
	}
	free(c->watchdog);
	c->watchdog = value[0] == '/' ? mem_strdup(value) : NULL;
	return 0;
}

/* Whole seconds, and why not less. */
static int set_watchdog_timeout(struct config *c, const struct config_key *key, const char *value,
				char **why)
{
	uint64_t ms;

	if (text_to_duration_ms(value, &ms) == 0 && ms >= key->min * 1000 &&
	    ms <= key->max * 1000 && ms % 1000 == 0) {
		*(uint64_t *)((char *)c + key->offset) = ms;
		return 0;
	}
	*why = mem_printf(
		"\"%s\" is not a time in whole seconds from %llus to %llus, such as 15s; "
		"with less a crash of witnessd would reset the board before it is started "
		"again",
		value, (unsigned long long)key->min, (unsigned long long)key->max);
	return -EINVAL;
}

static int set_number(struct config *c, const struct config_key *key, const char *value, char **why)
{
	if (text_to_u64(value, key->min, key->max, (uint64_t *)((char *)c + key->offset)) == 0)
		return 0;
	*why = mem_printf("\"%s\" is not a whole number from %llu to %llu", value,
			  (unsigned long long)key->min, (unsigned long long)key->max);
	return -EINVAL;
}

static int set_word(const char *value, const char *const *words, unsigned *ret, char **why)
{
	struct buf all = {0};

	for (unsigned i = 0; words[i] != NULL; i++) {
		if (strcmp(value, words[i]) == 0) {
			*ret = i;
			buf_free(&all);
			return 0;
		}
		buf_printf(&all, "%s%s", i ? ", " : "", words[i]);
	}
	*why = mem_printf("\"%s\" is not one of: %s", value, buf_string(&all));
	buf_free(&all);
	return -EINVAL;
}

static int set_tls(struct config *c, const struct config_key *key, const char *value, char **why)
{
	static const char *const words[] = {"off", "on", "required", NULL};
	unsigned word;
	int rv = set_word(value, words, &word, why);

	(void)key;
	if (rv == 0)
		c->tls = (enum config_tls)word;
	return rv;
}

static int set_switch(struct config *c, const struct config_key *key, const char *value, char **why)
{
	static const char *const words[] = {"off", "on", NULL};
	unsigned word;
	int rv = set_word(value, words, &word, why);

	if (rv == 0)
		*(bool *)((char *)c + key->offset) = word != 0;
	return rv;
}

static int set_level(struct config *c, const struct config_key *key, const char *value, char **why)
{
	static const char *const words[] = {"error", "warning", "notice", "info", "debug", NULL};
	unsigned word;
	int rv = set_word(value, words, &word, why);

	(void)key;
	if (rv == 0)
		c->log_level = 3 + word;
	return rv;
}

#define FIELD(name) offsetof(struct config, name)

static const struct config_key config_keys[] = {
	{"node.name", set_text, FIELD(name)},
	{"node.data-dir", set_path, FIELD(data_dir)},
	{"node.run-dir", set_path, FIELD(run_dir)},
	{"node.log-level", set_level, 0},
	{"node.watchdog", set_watchdog, 0},
	{"node.watchdog-timeout", set_watchdog_timeout, FIELD(watchdog_timeout_ms),
	 WATCHDOG_TIMEOUT_MIN, WATCHDOG_TIMEOUT_MAX},
	{"node.watchdog-keep", set_switch, FIELD(watchdog_keep)},
	{"api.listen", set_text, FIELD(listen)},
	{"api.advertise", set_text, FIELD(advertise)},
	{"api.connections-max", set_number, FIELD(connections_max), 8, 10000},
	{"api.pending-per-address-max", set_number, FIELD(api_pending_per_address_max), 0, 100000},
	{"sites.listen", set_text, FIELD(sites_listen)},
	{"sites.advertise", set_text, FIELD(sites_advertise)},
	{"sites.tls", set_tls, 0},
	{"sites.client-certificate", set_switch, FIELD(client_certificate)},
	{"sites.threads", set_number, FIELD(threads), 0, 16},
	{"sites.sessions-max", set_number, FIELD(sessions_max), 0, 100000},
	{"sites.sessions-per-address-max", set_number, FIELD(sessions_per_address_max), 0, 100000},
	{"sites.pending-per-address-max", set_number, FIELD(pending_per_address_max), 0, 100000},
	{"vms.program", set_path, FIELD(vm_program)},
	{"vms.uid-base", set_number, FIELD(vm_uid_base), 1000, 4294900000},
	{"vms.image-space-mib", set_number, FIELD(image_space_mib), 0, 1048576},
	{"vms.memory-reserve-mib", set_number, FIELD(vm_memory_reserve_mib), 0, 1048576},
	{"addresses.tickle", set_switch, FIELD(tickle)},
};

enum { CONFIG_KEYS = sizeof(config_keys) / sizeof(config_keys[0]) };

void config_init(struct config *c)
{
	*c = (struct config){
		.data_dir = mem_strdup("/var/lib/tiebreak"),
		.run_dir = mem_strdup("/run/tiebreak"),
		.log_level = 6,
		.watchdog_timeout_ms = WATCHDOG_TIMEOUT_DEFAULT * 1000,
		.listen = mem_strdup("*:7443"),
		.connections_max = 256,
		.api_pending_per_address_max = 256,
		.sites_listen = mem_strdup("*:5403"),
		.tls = CONFIG_TLS_ON,
		.client_certificate = true,
		.pending_per_address_max = 2048,
		.vm_program = mem_strdup("/usr/bin/witness-vm"),
		.vm_uid_base = 90000,
		.tickle = true,
	};
}

void config_free(struct config *c)
{
	free(c->name);
	free(c->data_dir);
	free(c->run_dir);
	free(c->watchdog);
	free(c->listen);
	free(c->advertise);
	free(c->sites_listen);
	free(c->sites_advertise);
	free(c->vm_program);
	*c = (struct config){0};
}

static int config_apply(void *arg, unsigned key, const char *value, char **ret_why)
{
	return config_keys[key].set(arg, &config_keys[key], value, ret_why);
}

/* The names of the settings, as the reader of such files wants them. */
struct config_names {
	const char *names[CONFIG_KEYS + 1];
};

static struct ini config_ini(struct config *c, struct config_names *names)
{
	for (unsigned i = 0; i < CONFIG_KEYS; i++)
		names->names[i] = config_keys[i].name;
	names->names[CONFIG_KEYS] = NULL;
	return (struct ini){
		.keys = names->names, .manual = "witnessd.conf(5)", .set = config_apply, .arg = c};
}

int config_set(struct config *c, const char *name, const char *value, char **ret_message)
{
	struct config_names names;
	struct ini ini = config_ini(c, &names);

	return ini_set(&ini, name, value, ret_message);
}

int config_parse(struct config *c, const char *file_name, const char *text, size_t len,
		 char **ret_message)
{
	struct config_names names;
	struct ini ini = config_ini(c, &names);

	return ini_parse(&ini, file_name, text, len, ret_message);
}

int config_read(struct config *c, const char *path, char **ret_message)
{
	struct config_names names;
	struct ini ini = config_ini(c, &names);

	return ini_read(&ini, path, ret_message);
}

/* Splits "host:port"; 0 or -EINVAL. Brackets of an IPv6 address stay in the host. */
static int address_split(const char *address, char host[256], const char **ret_port)
{
	const char *colon = strrchr(address, ':');
	uint64_t port;

	if (colon == NULL || colon == address || (size_t)(colon - address) >= 256 ||
	    text_to_u64(colon + 1, 0, 65535, &port) != 0)
		return -EINVAL;
	memcpy(host, address, (size_t)(colon - address));
	host[colon - address] = '\0';
	if (strchr(host, ':') != NULL && (host[0] != '[' || host[strlen(host) - 1] != ']'))
		return -EINVAL;
	*ret_port = colon + 1;
	return 0;
}

static bool host_is_any(const char *host)
{
	return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "[::]") == 0;
}

/* The first address of a running interface that others can reach; "127.0.0.1" on a lonely host. */
static char *host_address(void)
{
	struct ifaddrs *all = NULL;
	char text[INET6_ADDRSTRLEN] = "127.0.0.1";

	if (getifaddrs(&all) != 0)
		return mem_strdup(text);
	for (struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
		if (i->ifa_addr == NULL || i->ifa_addr->sa_family != AF_INET ||
		    (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_RUNNING))
			continue;
		inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr, text,
			  sizeof(text));
		break;
	}
	freeifaddrs(all);
	return mem_strdup(text);
}

static int address_check(const char *name, const char *address, char **ret_message)
{
	char host[256];
	const char *port;

	if (address_split(address, host, &port) == 0)
		return 0;
	*ret_message =
		mem_printf("%s \"%s\" is not an address; write HOST:PORT, *:PORT or [IPV6]:PORT",
			   name, address);
	return -EINVAL;
}

static int advertise_check(const char *name, const char *address, char **ret_message)
{
	char host[256];
	const char *port;
	int rv = address_check(name, address, ret_message);

	if (rv != 0)
		return rv;
	address_split(address, host, &port);
	if (!host_is_any(host))
		return 0;
	*ret_message =
		mem_printf("%s \"%s\" must name this board as others reach it, not any address",
			   name, address);
	return -EINVAL;
}

int config_finish(struct config *c, char **ret_message)
{
	char host[256];
	char sites_host[256];
	char own[65];
	const char *port;
	const char *sites_port;
	int rv;

	if (c->name == NULL) {
		if (gethostname(own, sizeof(own)) != 0 || own[0] == '\0')
			strcpy(own, "node");
		own[sizeof(own) - 1] = '\0';
		own[strcspn(own, ".")] = '\0';
		c->name = mem_strdup(own);
	}
	rv = address_check("api.listen", c->listen, ret_message);
	if (rv == 0)
		rv = address_check("sites.listen", c->sites_listen, ret_message);
	if (rv != 0)
		return rv;
	address_split(c->listen, host, &port);
	address_split(c->sites_listen, sites_host, &sites_port);
	if (c->advertise == NULL) {
		char *found = host_is_any(host) ? host_address() : mem_strdup(host);

		c->advertise = mem_printf("%s:%s", found, port);
		free(found);
	}
	rv = advertise_check("api.advertise", c->advertise, ret_message);
	if (rv != 0)
		return rv;
	if (c->sites_advertise == NULL) {
		address_split(c->advertise, host, &port);
		c->sites_advertise = mem_printf(
			"%s:%s", host_is_any(sites_host) ? host : sites_host, sites_port);
	}
	return advertise_check("sites.advertise", c->sites_advertise, ret_message);
}
