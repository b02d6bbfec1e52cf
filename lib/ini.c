#include "lib/ini.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/mem.h"
#include "lib/text.h"

static int key_find(const struct ini *ini, const char *name, unsigned *ret, char **ret_message)
{
	const char *nearest;

	for (unsigned i = 0; ini->keys[i] != NULL; i++) {
		if (strcmp(ini->keys[i], name) == 0) {
			*ret = i;
			return 0;
		}
	}
	nearest = text_nearest(name, ini->keys);
	if (nearest != NULL)
		*ret_message =
			mem_printf("unknown setting \"%s\"; did you mean \"%s\"?", name, nearest);
	else
		*ret_message = mem_printf("unknown setting \"%s\"; see %s", name, ini->manual);
	return -EINVAL;
}

static int key_apply(const struct ini *ini, unsigned key, const char *value, char **ret_message)
{
	char *why = NULL;
	int rv = ini->set(ini->arg, key, value, &why);

	if (rv != 0)
		*ret_message = mem_printf("%s %s", ini->keys[key], why);
	free(why);
	return rv;
}

int ini_set(const struct ini *ini, const char *name, const char *value, char **ret_message)
{
	unsigned key;
	int rv = key_find(ini, name, &key, ret_message);

	return rv != 0 ? rv : key_apply(ini, key, value, ret_message);
}

static char *trim(char *text)
{
	size_t len;

	text += strspn(text, " \t");
	len = strlen(text);
	while (len > 0 && strchr(" \t\r", text[len - 1]) != NULL)
		text[--len] = '\0';
	return text;
}

struct reader {
	char section[32];
	bool seen[INI_KEYS_MAX];
};

/* "[node], [api]": the sections that the settings are in. */
static char *sections_list(const struct ini *ini)
{
	struct buf list = {0};
	const char *last = "";
	size_t last_len = 0;

	for (unsigned i = 0; ini->keys[i] != NULL; i++) {
		const char *dot = strchr(ini->keys[i], '.');
		size_t len = dot != NULL ? (size_t)(dot - ini->keys[i]) : 0;

		if (len == 0 || (len == last_len && memcmp(last, ini->keys[i], len) == 0))
			continue;
		buf_printf(&list, "%s[%.*s]", list.len > 0 ? ", " : "", (int)len, ini->keys[i]);
		last = ini->keys[i];
		last_len = len;
	}
	char *text = mem_strdup(buf_string(&list));
	buf_free(&list);
	return text;
}

static int section_line(const struct ini *ini, struct reader *r, char *line, char **why)
{
	char *end = strchr(line, ']');
	char *known;

	if (strchr(ini->keys[0], '.') == NULL) {
		*why = mem_strdup("the settings of this file stand without a [section]");
		return -EINVAL;
	}
	if (end != NULL && end[1] == '\0' && end - line - 1 < (long)sizeof(r->section) &&
	    end != line + 1) {
		*end = '\0';
		snprintf(r->section, sizeof(r->section), "%s", line + 1);
		return 0;
	}
	known = sections_list(ini);
	*why = mem_printf("a section is one of %s", known);
	free(known);
	return -EINVAL;
}

static int setting_line(const struct ini *ini, struct reader *r, char *line, char **why)
{
	char *equals = strchr(line, '=');
	char name[80];
	unsigned key;
	int rv;

	if (equals == NULL) {
		*why = mem_strdup("expected \"key = value\", \"[section]\" or \"# comment\"");
		return -EINVAL;
	}
	*equals = '\0';
	if (strlen(equals + 1) > INI_VALUE_MAX) {
		*why = mem_printf("value longer than %d bytes", INI_VALUE_MAX);
		return -EINVAL;
	}
	if (r->section[0] == '\0' && strchr(ini->keys[0], '.') != NULL) {
		*why = mem_strdup("a setting before any [section]");
		return -EINVAL;
	}
	snprintf(name, sizeof(name), "%s%s%.40s", r->section, r->section[0] != '\0' ? "." : "",
		 trim(line));
	rv = key_find(ini, name, &key, why);
	if (rv != 0)
		return rv;
	assert(key < INI_KEYS_MAX);
	if (r->seen[key]) {
		*why = mem_printf("%s is set twice in this file", name);
		return -EINVAL;
	}
	r->seen[key] = true;
	return key_apply(ini, key, trim(equals + 1), why);
}

static int any_line(const struct ini *ini, struct reader *r, char *line, char **why)
{
	line = trim(line);
	if (*line == '\0' || *line == '#')
		return 0;
	return *line == '[' ? section_line(ini, r, line, why) : setting_line(ini, r, line, why);
}

int ini_parse(const struct ini *ini, const char *file_name, const char *text, size_t len,
	      char **ret_message)
{
	struct reader reader = {0};
	char *copy;
	char *rest;
	unsigned number = 0;
	int rv = 0;

	if (len > INI_FILE_MAX || !text_is_utf8(text, len)) {
		*ret_message =
			mem_printf("%s: not a configuration file: %s", file_name,
				   len > INI_FILE_MAX ? "larger than 64 KiB" : "not UTF-8 text");
		return -EINVAL;
	}
	copy = mem_strndup(text, len);
	rest = copy;
	while (rv == 0 && rest != NULL) {
		char *line = strsep(&rest, "\n");
		char *why = NULL;

		number++;
		rv = any_line(ini, &reader, line, &why);
		if (rv != 0)
			*ret_message = mem_printf("%s:%u: %s", file_name, number, why);
		free(why);
	}
	free(copy);
	return rv;
}

int ini_read(const struct ini *ini, const char *path, char **ret_message)
{
	FILE *file = fopen(path, "re");
	struct buf text = {0};
	size_t got;
	int rv;

	if (file == NULL) {
		rv = -errno;
		*ret_message = mem_printf("%s: %s", path, strerror(-rv));
		return rv;
	}
	buf_reserve(&text, INI_FILE_MAX + 1);
	got = fread(text.data, 1, INI_FILE_MAX + 1, file);
	if (ferror(file)) {
		rv = -EIO;
		*ret_message = mem_printf("%s: cannot read (is it a directory?)", path);
	} else {
		rv = ini_parse(ini, path, (const char *)text.data, got, ret_message);
	}
	fclose(file);
	buf_free(&text);
	return rv;
}
