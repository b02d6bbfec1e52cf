/* ini.h: settings files: [section] lines, `key = value` lines, # comments. The reader knows the
 * form, whoever calls it knows the settings. */
#pragma once
#include <stddef.h>

enum { INI_FILE_MAX = 64 * 1024, INI_VALUE_MAX = 256, INI_KEYS_MAX = 64 };

/* `keys` are the settings known, NULL-terminated, at most INI_KEYS_MAX: "section.key", or "key" for
 * those before any section. `set` gets the index of the setting and a value without the white space
 * around it; it returns 0, or a negative errno and a sentence that goes on after the setting's
 * name ("must be ..."), owned by the reader then. */
struct ini {
	const char *const *keys;
	const char *manual; /* where they are explained: "witnessd.conf(5)" */
	int (*set)(void *arg, unsigned key, const char *value, char **ret_why);
	void *arg;
};

/* 0, or a negative errno and a message "FILE:3: ..." with the remedy (owned by the caller). Unknown
 * and repeated settings are errors. */
int ini_parse(const struct ini *ini, const char *file_name, const char *text, size_t len,
	      char **ret_message);
/* The same from a file; -ENOENT and others if it cannot be read. At most INI_FILE_MAX bytes. */
int ini_read(const struct ini *ini, const char *path, char **ret_message);
/* One setting by name, as from a command line. */
int ini_set(const struct ini *ini, const char *name, const char *value, char **ret_message);
