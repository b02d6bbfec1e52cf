#include "cli/site_field.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/human.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/json.h"

enum field_kind {
	FIELD_TEXT,
	FIELD_WORD,
	FIELD_TIE_BREAKER,
	FIELD_NUMBER,
	FIELD_DURATION,
	FIELD_LEASE
};

struct site_field_spec {
	const char *name;
	const char *path;
	enum field_kind kind;
	const ProtobufCEnumDescriptor *words;
	const char *noun;
};

static const struct site_field_spec specs[] = {
	{"name", "name", FIELD_TEXT, NULL, NULL},
	{"algorithm", "policy.algorithm", FIELD_WORD, &tb__algorithm__descriptor, "an algorithm"},
	{"tie-breaker", "policy.tieBreaker", FIELD_TIE_BREAKER, &tb__tie_breaker__descriptor,
	 "a tie-breaker"},
	{"tie-breaker-node", "policy.tieBreakerNode", FIELD_NUMBER, NULL, "a node id"},
	{"keep-active-partition", "policy.keepActivePartition", FIELD_WORD, &tb__switch__descriptor,
	 "a setting of keep-active-partition"},
	{"tls", "policy.tls", FIELD_WORD, &tb__tls__descriptor, "a TLS setting"},
	{"handover", "policy.handover", FIELD_WORD, &tb__handover__descriptor, "a handover"},
	{"heartbeat-min", "policy.heartbeatMinMs", FIELD_DURATION, NULL, NULL},
	{"heartbeat-max", "policy.heartbeatMaxMs", FIELD_DURATION, NULL, NULL},
	{"lease", "policy.lease", FIELD_LEASE, &tb__lease_policy__descriptor, "a lease policy"},
};
enum { SPEC_COUNT = sizeof(specs) / sizeof(specs[0]) };

const char *const site_field_options[] = {
	"algorithm",	 "tie-breaker", "keep-active-partition",
	"tls",		 "handover",	"heartbeat-min",
	"heartbeat-max", "lease",	NULL,
};

static int field_label(const char *key, struct site_field *ret, char message[SITE_FIELD_MESSAGE])
{
	size_t len = strlen(key);

	if (len == 0 || len > SITE_LABEL_KEY_MAX) {
		snprintf(message, SITE_FIELD_MESSAGE,
			 "a label's key has 1 to %d characters; write label.KEY",
			 SITE_LABEL_KEY_MAX);
		return -EINVAL;
	}
	ret->spec = NULL;
	memcpy(ret->label, key, len + 1);
	return 0;
}

int site_field_find(const char *name, struct site_field *ret, char message[SITE_FIELD_MESSAGE])
{
	const char *candidates[2 * SPEC_COUNT + 1] = {NULL};
	const char *nearest;

	memset(ret, 0, sizeof(*ret));
	if (strncmp(name, "label.", 6) == 0)
		return field_label(name + 6, ret, message);
	if (strncmp(name, "labels.", 7) == 0)
		return field_label(name + 7, ret, message);
	for (size_t i = 0; i < SPEC_COUNT; i++) {
		candidates[2 * i] = specs[i].name;
		candidates[2 * i + 1] = specs[i].path;
		if (strcmp(specs[i].name, name) == 0 || strcmp(specs[i].path, name) == 0) {
			ret->spec = &specs[i];
			return 0;
		}
	}
	nearest = text_nearest(name, candidates);
	if (nearest != NULL)
		snprintf(message, SITE_FIELD_MESSAGE,
			 "unknown column \"%.64s\"; did you mean \"%s\"?", name, nearest);
	else
		snprintf(message, SITE_FIELD_MESSAGE,
			 "unknown column \"%.64s\"; known are name, algorithm, tie-breaker, "
			 "keep-active-partition, tls, handover, heartbeat-min, heartbeat-max, "
			 "lease and "
			 "label.KEY",
			 name);
	return -EINVAL;
}

void site_field_path(const struct site_field *f, char path[96])
{
	if (f->spec != NULL)
		snprintf(path, 96, "%s", f->spec->path);
	else
		snprintf(path, 96, "labels.%s", f->label);
}

bool site_field_equal(const struct site_field *a, const struct site_field *b)
{
	return a->spec == b->spec && strcmp(a->label, b->label) == 0;
}

Tb__Site *site_new(void)
{
	return (Tb__Site *)protobuf_c_message_unpack(&tb__site__descriptor, NULL, 0, NULL);
}

const char *site_label(const Tb__Site *site, const char *key)
{
	for (size_t i = 0; i < site->n_labels; i++) {
		if (strcmp(site->labels[i]->key, key) == 0)
			return site->labels[i]->value;
	}
	return NULL;
}

void site_label_set(Tb__Site *site, const char *key, const char *value)
{
	Tb__Site__LabelsEntry *entry;

	for (size_t i = 0; i < site->n_labels; i++) {
		if (strcmp(site->labels[i]->key, key) != 0)
			continue;
		if (site->labels[i]->value != protobuf_c_empty_string)
			free(site->labels[i]->value);
		site->labels[i]->value = mem_strdup(value);
		return;
	}
	entry = mem_alloc(sizeof(*entry));
	tb__site__labels_entry__init(entry);
	entry->key = mem_strdup(key);
	entry->value = mem_strdup(value);
	site->labels = mem_realloc(site->labels, (site->n_labels + 1) * sizeof(*site->labels));
	site->labels[site->n_labels++] = entry;
}

/* "`value` is not `noun`; did you mean ..." or the list of what is allowed. */
static void complain_word(const struct site_field_spec *spec, const char *value, const char *more,
			  char message[SITE_FIELD_MESSAGE])
{
	char words[16][64];
	const char *list[17] = {NULL};
	const char *nearest;
	size_t used;

	for (unsigned i = 0; i < spec->words->n_values && i < 16; i++) {
		json_enum_word(spec->words, spec->words->values[i].value, words[i]);
		list[i] = words[i];
	}
	used = (size_t)snprintf(message, SITE_FIELD_MESSAGE, "\"%.64s\" is not %s; ", value,
				spec->noun);
	nearest = text_nearest(value, list);
	if (nearest != NULL) {
		snprintf(message + used, SITE_FIELD_MESSAGE - used, "did you mean \"%s\"?",
			 nearest);
		return;
	}
	used += (size_t)snprintf(message + used, SITE_FIELD_MESSAGE - used, "allowed are ");
	for (size_t i = 0; list[i] != NULL && used < SITE_FIELD_MESSAGE; i++)
		used += (size_t)snprintf(message + used, SITE_FIELD_MESSAGE - used, "%s%s",
					 i > 0 ? ", " : "", list[i]);
	if (used < SITE_FIELD_MESSAGE)
		snprintf(message + used, SITE_FIELD_MESSAGE - used, "%s", more);
}

static int path_set(Tb__Site *site, const char *path, const char *value,
		    char message[SITE_FIELD_MESSAGE])
{
	struct json_error error;

	if (json_set(&site->base, path, value, &error) == 0)
		return 0;
	snprintf(message, SITE_FIELD_MESSAGE, "%s", error.message);
	return -EINVAL;
}

static int tie_breaker_set(Tb__Site *site, const struct site_field_spec *spec, const char *value,
			   char message[SITE_FIELD_MESSAGE])
{
	struct json_error error;
	uint64_t node;
	int number;

	if (json_enum_parse(spec->words, value, &number, &error) == 0) {
		/* Behind a node's id of an earlier setting only a word may follow alone. */
		if (number != TB__TIE_BREAKER__TIE_BREAKER_NODE &&
		    path_set(site, "policy.tieBreakerNode", "0", message) != 0)
			return -EINVAL;
		return path_set(site, spec->path, value, message);
	}
	if (text_to_u64(value, 1, UINT32_MAX, &node) == 0) {
		if (path_set(site, spec->path, "node", message) != 0)
			return -EINVAL;
		return path_set(site, "policy.tieBreakerNode", value, message);
	}
	complain_word(spec, value, ", or the id of a node", message);
	return -EINVAL;
}

/* "generation", "preferred:2". */
static int lease_set(Tb__Site *site, const struct site_field_spec *spec, const char *value,
		     char message[SITE_FIELD_MESSAGE])
{
	const char *colon = strchr(value, ':');
	char *word = mem_strndup(value, colon != NULL ? (size_t)(colon - value) : strlen(value));
	struct json_error error;
	uint64_t node;
	int number;
	int rv = 0;

	if (json_enum_parse(spec->words, word, &number, &error) != 0) {
		complain_word(spec, word, ", the last two with the node's id as in preferred:2",
			      message);
		rv = -EINVAL;
	} else if (colon != NULL && text_to_u64(colon + 1, 1, UINT32_MAX, &node) != 0) {
		snprintf(message, SITE_FIELD_MESSAGE, "\"%.64s\" is not a node id; write %.64s:2",
			 colon + 1, word);
		rv = -EINVAL;
	} else {
		rv = path_set(site, spec->path, word, message);
	}
	if (rv == 0)
		rv = path_set(site, "policy.leaseNode", colon != NULL ? colon + 1 : "0", message);
	free(word);
	return rv;
}

static int duration_set(Tb__Site *site, const struct site_field_spec *spec, const char *value,
			char message[SITE_FIELD_MESSAGE])
{
	char digits[24];
	uint64_t ms;

	if (text_to_u64(value, 0, UINT32_MAX, &ms) != 0 && text_to_duration_ms(value, &ms) != 0) {
		snprintf(message, SITE_FIELD_MESSAGE,
			 "\"%.64s\" is not a duration; write milliseconds or a number with a unit, "
			 "as "
			 "in 8s",
			 value);
		return -EINVAL;
	}
	snprintf(digits, sizeof(digits), "%" PRIu64, ms);
	return path_set(site, spec->path, digits, message);
}

int site_field_set(Tb__Site *site, const struct site_field *f, const char *value,
		   char message[SITE_FIELD_MESSAGE])
{
	struct json_error error;
	int number;

	if (f->spec == NULL) {
		site_label_set(site, f->label, value);
		return 0;
	}
	switch (f->spec->kind) {
	case FIELD_WORD:
		if (json_enum_parse(f->spec->words, value, &number, &error) != 0) {
			complain_word(f->spec, value, "", message);
			return -EINVAL;
		}
		return path_set(site, f->spec->path, value, message);
	case FIELD_TIE_BREAKER:
		return tie_breaker_set(site, f->spec, value, message);
	case FIELD_LEASE:
		return lease_set(site, f->spec, value, message);
	case FIELD_DURATION:
		return duration_set(site, f->spec, value, message);
	default:
		return path_set(site, f->spec->path, value, message);
	}
}

static void word_get(const ProtobufCEnumDescriptor *words, int value, char text[256])
{
	char word[64];

	if (value == 0)
		text[0] = '\0';
	else
		snprintf(text, 256, "%s", json_enum_word(words, value, word));
}

static void ms_get(uint32_t ms, char text[256])
{
	char exact[32] = "";

	if (ms != 0)
		human_duration_exact(ms, exact);
	snprintf(text, 256, "%s", exact);
}

static void lease_get(const Tb__SitePolicy *p, char text[256])
{
	size_t used;

	word_get(&tb__lease_policy__descriptor, p->lease, text);
	used = strlen(text);
	if (p->lease_node != 0)
		snprintf(text + used, 256 - used, ":%" PRIu32, p->lease_node);
}

static void policy_get(const Tb__SitePolicy *p, const char *name, char text[256])
{
	text[0] = '\0';
	if (p == NULL)
		return;
	if (strcmp(name, "algorithm") == 0)
		word_get(&tb__algorithm__descriptor, p->algorithm, text);
	else if (strcmp(name, "tie-breaker") == 0 &&
		 p->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_NODE)
		snprintf(text, 256, "%" PRIu32, p->tie_breaker_node);
	else if (strcmp(name, "tie-breaker") == 0)
		word_get(&tb__tie_breaker__descriptor, p->tie_breaker, text);
	else if (strcmp(name, "keep-active-partition") == 0)
		word_get(&tb__switch__descriptor, p->keep_active_partition, text);
	else if (strcmp(name, "tls") == 0)
		word_get(&tb__tls__descriptor, p->tls, text);
	else if (strcmp(name, "handover") == 0)
		word_get(&tb__handover__descriptor, p->handover, text);
	else if (strcmp(name, "heartbeat-min") == 0)
		ms_get(p->heartbeat_min_ms, text);
	else if (strcmp(name, "heartbeat-max") == 0)
		ms_get(p->heartbeat_max_ms, text);
	else if (strcmp(name, "lease") == 0)
		lease_get(p, text);
	else if (p->tie_breaker_node != 0)
		snprintf(text, 256, "%" PRIu32, p->tie_breaker_node);
}

bool site_field_get(const Tb__Site *site, const struct site_field *f, char text[256])
{
	if (f->spec == NULL) {
		const char *value = site_label(site, f->label);

		snprintf(text, 256, "%s", value != NULL ? value : "");
		return value != NULL;
	}
	if (strcmp(f->spec->name, "name") == 0)
		snprintf(text, 256, "%s", site->name);
	else
		policy_get(site->policy, f->spec->name, text);
	return true;
}

static int label_option_apply(const char *text, Tb__Site *site, struct buf *labels, bool removable)
{
	const char *equals = strchr(text, '=');
	size_t len = equals != NULL ? (size_t)(equals - text) : strlen(text);
	bool removed = equals == NULL && removable && len > 1 && text[len - 1] == '-';
	char *key;

	if ((equals == NULL && !removed) || len == 0) {
		complain("--label: \"%s\" is not a label; write key=value%s", text,
			 removable ? ", or key- to remove it" : "");
		return EXIT_USAGE;
	}
	key = mem_strndup(text, removed ? len - 1 : len);
	if (labels != NULL) {
		if (labels->len > 0)
			buf_putc(labels, ',');
		json_encode_string(key, labels);
		buf_putc(labels, ':');
		if (removed)
			buf_puts(labels, "null");
		else
			json_encode_string(equals + 1, labels);
	}
	if (!removed)
		site_label_set(site, key, equals + 1);
	free(key);
	return 0;
}

/* The patch is not json_encode's: that leaves defaults out, and here "any" must be said. */
static void patch_policy(const Tb__Site *site, const char *name, const char *value, struct buf *out)
{
	const Tb__SitePolicy *p = site->policy;
	char word[64];

	if (out->len > 0)
		buf_putc(out, ',');
	if (strcmp(name, "tie-breaker") == 0) {
		buf_printf(out, "\"tieBreaker\":\"%s\",\"tieBreakerNode\":%" PRIu32,
			   json_enum_word(&tb__tie_breaker__descriptor, p->tie_breaker, word),
			   p->tie_breaker_node);
	} else if (strcmp(name, "lease") == 0) {
		buf_printf(out, "\"lease\":\"%s\",\"leaseNode\":%" PRIu32,
			   json_enum_word(&tb__lease_policy__descriptor, p->lease, word),
			   p->lease_node);
	} else if (strcmp(name, "heartbeat-min") == 0) {
		buf_printf(out, "\"heartbeatMinMs\":%" PRIu32, p->heartbeat_min_ms);
	} else if (strcmp(name, "heartbeat-max") == 0) {
		buf_printf(out, "\"heartbeatMaxMs\":%" PRIu32, p->heartbeat_max_ms);
	} else {
		struct site_field f;
		char message[SITE_FIELD_MESSAGE];

		(void)site_field_find(name, &f, message);
		json_encode_string(strchr(f.spec->path, '.') + 1, out);
		buf_putc(out, ':');
		json_encode_string(value, out);
	}
}

int site_options_apply(const struct invocation *inv, Tb__Site *site, struct buf *patch)
{
	struct buf labels = {0}, policy = {0};
	const char *text;
	int rv = 0;

	for (size_t i = 0; rv == 0 && (text = option_nth(inv, "label", i)) != NULL; i++)
		rv = label_option_apply(text, site, &labels, patch != NULL);
	for (size_t i = 0; rv == 0 && site_field_options[i] != NULL; i++) {
		struct site_field field;
		char message[SITE_FIELD_MESSAGE];

		text = option_text(inv, site_field_options[i]);
		if (text == NULL)
			continue;
		rv = site_field_find(site_field_options[i], &field, message);
		if (rv == 0)
			rv = site_field_set(site, &field, text, message);
		if (rv != 0) {
			complain("--%s: %s", site_field_options[i], message);
			rv = EXIT_USAGE;
		} else {
			patch_policy(site, site_field_options[i], text, &policy);
		}
	}
	if (rv == 0 && patch != NULL) {
		const char *comma = labels.len > 0 && policy.len > 0 ? "," : "";

		if (labels.len > 0)
			buf_printf(patch, "\"labels\":{%s}", buf_string(&labels));
		buf_puts(patch, comma);
		if (policy.len > 0)
			buf_printf(patch, "\"policy\":{%s}", buf_string(&policy));
	}
	buf_free(&labels);
	buf_free(&policy);
	return rv;
}
