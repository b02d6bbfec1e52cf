/* config.h: the daemon's local settings. Sites, tokens and boards live in the replicated model;
 * this is only what one board needs to find its files and its addresses. Every default is so
 * good that no file is needed.
 *
 * Format: [section] lines and `key = value` lines, # comments. Unknown sections and keys,
 * repeated keys, missing units and values out of range are errors with file, line and remedy. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SESSIONS_MAX_DEFAULT = 25000, CONFIG_VM_UIDS = 256 };

enum config_tls { CONFIG_TLS_OFF, CONFIG_TLS_ON, CONFIG_TLS_REQUIRED };

struct config {
	/* [node] */
	char *name; /* default: the host name */
	char *data_dir; /* /var/lib/tiebreak */
	char *run_dir; /* /run/tiebreak */
	unsigned log_level; /* 3 error .. 7 debug; default 6 */
	char *watchdog; /* its device; NULL: off (default) */
	uint64_t watchdog_timeout_ms; /* whole seconds; 15 s */
	bool watchdog_keep; /* off: disarmed when witnessd is stopped */
	/* [api] */
	char *listen; /* *:7443 */
	char *advertise; /* host:port that others reach; default: the first address of this host */
	uint64_t connections_max; /* 256 */
	uint64_t api_pending_per_address_max; /* 256; 0: no limit */
	/* [sites] */
	char *sites_listen; /* *:5403 */
	char *sites_advertise; /* default: host of `advertise`, port of sites_listen */
	enum config_tls tls; /* on */
	bool client_certificate; /* on */
	uint64_t threads; /* of the site door; 0: one fewer than the cores, at least one */
	/* 0: as many as the limit of open files has room for, at most SESSIONS_MAX_DEFAULT;
	 * resolved by main before the door starts */
	uint64_t sessions_max;
	uint64_t agents_max; /* not a setting: resolved with sessions_max */
	uint64_t sessions_per_address_max; /* 0: no limit */
	uint64_t pending_per_address_max; /* 2048; 0: no limit */
	/* [vms] */
	char *vm_program; /* /usr/bin/witness-vm */
	/* 90000: the first of CONFIG_VM_UIDS users and groups, one for each running VM. Nobody else
	 * has them: Debian gives 1000..59999 to people and programs, systemd takes up to 65519 and
	 * from 524288 on, and subordinate ids begin at 100000. */
	uint64_t vm_uid_base;
	uint64_t image_space_mib; /* for images; 0: what the card has, less a reserve */
	uint64_t vm_memory_reserve_mib; /* kept from VMs; 0: the larger of 384 and a quarter */
	/* [addresses] */
	bool tickle; /* on: clients of a dead board are told by the heir of its address */
};

/* All defaults; strings are owned by the config. */
void config_init(struct config *c);
void config_free(struct config *c);
/* Reads the text of a file over what `c` holds. 0, or -EINVAL and a message
 * "witnessd.conf:3: ..." (owned by the caller); `c` may hold some of the file's values then. */
int config_parse(struct config *c, const char *file_name, const char *text, size_t len,
		 char **ret_message);
/* The same from a file; -ENOENT if it is not there. At most 64 KiB. */
int config_read(struct config *c, const char *path, char **ret_message);
/* Sets one "section.key" as from the command line. */
int config_set(struct config *c, const char *name, const char *value, char **ret_message);
/* Fills what depends on the host (name, advertise) and checks that the whole fits together. */
int config_finish(struct config *c, char **ret_message);
