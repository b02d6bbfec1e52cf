#include "cli/vm_spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

static int wrong(char message[VM_SPEC_MESSAGE], const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static int wrong(char message[VM_SPEC_MESSAGE], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(message, VM_SPEC_MESSAGE, format, args);
	va_end(args);
	return -EINVAL;
}

int vm_size_read(const char *text, uint32_t *ret_mib, char message[VM_SPEC_MESSAGE])
{
	static const struct {
		const char *unit;
		uint64_t mib;
	} units[] = {{"M", 1},	    {"MiB", 1},	    {"G", 1024},
		     {"GiB", 1024}, {"T", 1 << 20}, {"TiB", 1 << 20}};
	size_t digits = strspn(text, "0123456789");
	char number[16];
	uint64_t value;

	if (digits > 0 && digits < sizeof(number)) {
		memcpy(number, text, digits);
		number[digits] = '\0';
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
			if (strcmp(text + digits, units[i].unit) != 0)
				continue;
			if (text_to_u64(number, 1, UINT32_MAX / units[i].mib, &value) != 0)
				break;
			*ret_mib = (uint32_t)(value * units[i].mib);
			return 0;
		}
	}
	return wrong(message, "\"%.40s\" is no size; write 256M, 4G or 1T", text);
}

static void member(struct buf *out, const char *name)
{
	if (out->len > 0 && out->data[out->len - 1] != '{')
		buf_putc(out, ',');
	buf_printf(out, "\"%s\":", name);
}

static void member_text(struct buf *out, const char *name, const char *value)
{
	member(out, name);
	json_encode_string(value, out);
}

static void member_number(struct buf *out, const char *name, uint64_t value)
{
	member(out, name);
	buf_printf(out, "%" PRIu64, value);
}

/* One "key=value" of a list; *text moves behind it. */
struct pair {
	char key[16];
	char value[256];
};

static int pair_next(const char **text, struct pair *ret, char message[VM_SPEC_MESSAGE])
{
	size_t len = strcspn(*text, ",");
	const char *equals = memchr(*text, '=', len);
	size_t key = equals != NULL ? (size_t)(equals - *text) : len;

	if (equals == NULL || key == 0 || key >= sizeof(ret->key) ||
	    len - key - 1 >= sizeof(ret->value) || len - key - 1 == 0)
		return wrong(message, "\"%.*s\" is not KEY=VALUE", len < 60 ? (int)len : 60, *text);
	memcpy(ret->key, *text, key);
	ret->key[key] = '\0';
	memcpy(ret->value, equals + 1, len - key - 1);
	ret->value[len - key - 1] = '\0';
	*text += len;
	*text += **text == ',';
	return 0;
}

/* --- disks --- */

static int disk_kind(const struct pair *p, struct buf *out, char message[VM_SPEC_MESSAGE])
{
	uint32_t mib;

	member_text(out, "kind", p->key);
	if (strcmp(p->key, "data") != 0) {
		member_text(out, "image", p->value);
		return 0;
	}
	if (vm_size_read(p->value, &mib, message) != 0)
		return -EINVAL;
	member_number(out, "sizeMib", mib);
	return 0;
}

static int disk_more(const struct pair *p, const char *kind, struct buf *out,
		     char message[VM_SPEC_MESSAGE])
{
	uint32_t mib;

	if (strcmp(p->key, "id") == 0) {
		member_text(out, "id", p->value);
		return 0;
	}
	if (strcmp(p->key, "size") != 0)
		return wrong(message, "a disk has no \"%s\"; it has size= and id=", p->key);
	if (strcmp(kind, "overlay") != 0)
		return wrong(message, "size= is for an overlay; a data disk is data=SIZE, and an "
				      "image has the size that it has");
	if (vm_size_read(p->value, &mib, message) != 0)
		return -EINVAL;
	member_number(out, "sizeMib", mib);
	return 0;
}

int vm_disk_read(const char *text, struct buf *out, char message[VM_SPEC_MESSAGE])
{
	static const char how[] = "begin with image=NAME (read-only), overlay=NAME (writable, gone "
				  "after a move) or data=SIZE (stays on its board)";
	struct pair first;
	struct pair p;

	if (pair_next(&text, &first, message) != 0)
		return wrong(message, "a disk: %s", how);
	if (strcmp(first.key, "image") != 0 && strcmp(first.key, "overlay") != 0 &&
	    strcmp(first.key, "data") != 0)
		return wrong(message, "a disk cannot begin with \"%s=\"; %s", first.key, how);
	buf_putc(out, '{');
	if (disk_kind(&first, out, message) != 0)
		return -EINVAL;
	while (*text != '\0')
		if (pair_next(&text, &p, message) != 0 ||
		    disk_more(&p, first.key, out, message) != 0)
			return -EINVAL;
	buf_putc(out, '}');
	return 0;
}

/* --- network cards --- */

int vm_nic_read(const char *text, struct buf *out, char message[VM_SPEC_MESSAGE])
{
	size_t len = strcspn(text, ",");
	char *bridge = mem_strndup(text, len);
	struct pair p;
	int rv = 0;

	if (len == 0 || strchr(bridge, '=') != NULL)
		rv = wrong(message, "a network card is BRIDGE or BRIDGE,mac=ADDRESS, not \"%.60s\"",
			   text);
	buf_putc(out, '{');
	member_text(out, "bridge", bridge);
	free(bridge);
	text += len;
	text += *text == ',';
	while (rv == 0 && *text != '\0') {
		rv = pair_next(&text, &p, message);
		if (rv == 0 && strcmp(p.key, "mac") != 0)
			rv = wrong(message, "a network card has no \"%s\"; it has mac=", p.key);
		if (rv == 0)
			member_text(out, "mac", p.value);
	}
	buf_putc(out, '}');
	return rv;
}

/* --- the options --- */

/* Options that are one member of the config as they are. */
static const struct {
	const char *option;
	const char *field;
} texts[] = {
	{"kernel", "kernel"},	{"initrd", "initrd"}, {"command-line", "commandLine"},
	{"restart", "restart"}, {"on-loss", "loss"},  {"apart", "apart"},
};
static const struct {
	const char *option;
	const char *field;
} numbers[] = {
	{"cpus", "vcpus"},
	{"restart-attempts", "restartAttempts"},
	{"priority", "priority"},
	{"start-order", "startOrder"},
};

typedef int (*item_read)(const char *text, struct buf *out, char message[VM_SPEC_MESSAGE]);

static int name_read(const char *text, struct buf *out, char message[VM_SPEC_MESSAGE])
{
	(void)message;
	json_encode_string(text, out);
	return 0;
}

static int list_read(const struct invocation *inv, const char *option, const char *field,
		     item_read read, struct buf *out)
{
	const char *text = option_nth(inv, option, 0);
	char message[VM_SPEC_MESSAGE];

	if (text == NULL)
		return EXIT_OK;
	member(out, field);
	buf_putc(out, '[');
	if (strcmp(text, "none") == 0 && option_nth(inv, option, 1) == NULL)
		text = NULL;
	for (size_t i = 0; text != NULL; text = option_nth(inv, option, ++i)) {
		if (i > 0)
			buf_putc(out, ',');
		if (read(text, out, message) != 0) {
			complain("--%s %s: %s", option, text, message);
			return EXIT_USAGE;
		}
	}
	buf_putc(out, ']');
	return EXIT_OK;
}

static int memory_read(const struct invocation *inv, struct buf *out)
{
	const char *text = option_text(inv, "memory");
	char message[VM_SPEC_MESSAGE];
	uint32_t mib;

	if (text == NULL)
		return EXIT_OK;
	if (vm_size_read(text, &mib, message) != 0) {
		complain("--memory: %s", message);
		return EXIT_USAGE;
	}
	member_number(out, "memoryMib", mib);
	return EXIT_OK;
}

static int config_read(const struct invocation *inv, struct buf *out)
{
	int rv;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (option_given(inv, texts[i].option))
			member_text(out, texts[i].field, option_text(inv, texts[i].option));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (option_given(inv, numbers[i].option))
			member_number(out, numbers[i].field,
				      option_number(inv, numbers[i].option, 0));
	if (option_given(inv, "restart-backoff"))
		member_number(out, "restartBackoffMs",
			      option_duration_ms(inv, "restart-backoff", 0));
	rv = memory_read(inv, out);
	if (rv == EXIT_OK)
		rv = list_read(inv, "disk", "disks", vm_disk_read, out);
	if (rv == EXIT_OK)
		rv = list_read(inv, "nic", "nics", vm_nic_read, out);
	if (rv == EXIT_OK)
		rv = list_read(inv, "prefer", "prefer", name_read, out);
	return rv == EXIT_OK ? list_read(inv, "require", "require", name_read, out) : rv;
}

static int label_read(const char *text, struct buf *out)
{
	const char *equals = strchr(text, '=');
	size_t len = strlen(text);
	char *key;

	if (equals == NULL && (len < 2 || text[len - 1] != '-')) {
		complain("--label %s: write KEY=VALUE, or KEY- to take it away", text);
		return EXIT_USAGE;
	}
	key = mem_strndup(text, equals != NULL ? (size_t)(equals - text) : len - 1);
	if (out->len > 0 && out->data[out->len - 1] != '{')
		buf_putc(out, ',');
	json_encode_string(key, out);
	buf_putc(out, ':');
	if (equals != NULL)
		json_encode_string(equals + 1, out);
	else
		buf_puts(out, "null");
	free(key);
	return EXIT_OK;
}

int vm_options_read(const struct invocation *inv, struct buf *members)
{
	struct buf config = {0};
	const char *label;
	int rv = config_read(inv, &config);

	if (rv == EXIT_OK && config.len > 0) {
		member(members, "config");
		buf_printf(members, "{%s}", buf_string(&config));
	}
	buf_free(&config);
	if (rv == EXIT_OK && option_given(inv, "label")) {
		member(members, "labels");
		buf_putc(members, '{');
		for (size_t i = 0; rv == EXIT_OK && (label = option_nth(inv, "label", i)) != NULL;
		     i++)
			rv = label_read(label, members);
		buf_putc(members, '}');
	}
	return rv;
}
