#include "cli/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/help.h"
#include "cluster/limits.h"
#include "lib/mem.h"
#include "lib/text.h"

enum {
	PATH_MAX_LEN = 64,
	LONG_OPTIONS_MAX = 64,
	CODE_LONG = 1000, /* getopt codes of options: this plus their place in the list */
};

void complain(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

const struct command *command_find(const char *path)
{
	for (const struct command *c = commands; c->path != NULL; c++) {
		if (strcmp(c->path, path) == 0)
			return c;
	}
	return NULL;
}

static const struct option_spec *spec_find(const struct option_spec *specs, const char *name)
{
	for (; specs != NULL && specs->name != NULL; specs++) {
		if (strcmp(specs->name, name) == 0)
			return specs;
	}
	return NULL;
}

const struct option_spec *command_option(const struct command *command, const char *name)
{
	const struct option_spec *spec = command != NULL ? spec_find(command->options, name) : NULL;

	return spec != NULL ? spec : spec_find(global_options, name);
}

const char *option_nth(const struct invocation *inv, const char *name, size_t n)
{
	for (size_t i = 0; i < inv->option_count; i++) {
		if (strcmp(inv->options[i].spec->name, name) == 0 && n-- == 0)
			return inv->options[i].value;
	}
	return NULL;
}

const char *option_text(const struct invocation *inv, const char *name)
{
	const char *value = NULL;

	for (size_t i = 0; i < inv->option_count; i++) {
		if (strcmp(inv->options[i].spec->name, name) == 0)
			value = inv->options[i].value;
	}
	return value;
}

bool option_given(const struct invocation *inv, const char *name)
{
	for (size_t i = 0; i < inv->option_count; i++) {
		if (strcmp(inv->options[i].spec->name, name) == 0)
			return true;
	}
	return false;
}

uint64_t option_number(const struct invocation *inv, const char *name, uint64_t otherwise)
{
	const char *text = option_text(inv, name);
	uint64_t value = otherwise;

	if (text != NULL)
		(void)text_to_u64(text, 0, UINT64_MAX, &value);
	return value;
}

uint64_t option_duration_ms(const struct invocation *inv, const char *name, uint64_t otherwise)
{
	const char *text = option_text(inv, name);
	uint64_t value = otherwise;

	if (text != NULL)
		(void)text_to_duration_ms(text, &value);
	return value;
}

/* The options in force as getopt_long wants them: the command's own hide global ones of the same
 * name or letter. */
struct option_table {
	const struct option_spec *specs[LONG_OPTIONS_MAX];
	size_t count;
	struct option longs[LONG_OPTIONS_MAX + 1];
	char letters[3 * LONG_OPTIONS_MAX + 3];
};

static bool letter_taken(const struct option_table *t, char letter)
{
	for (size_t i = 0; i < t->count; i++) {
		if (t->specs[i]->letter == letter)
			return true;
	}
	return false;
}

static void table_add(struct option_table *t, const struct option_spec *spec)
{
	size_t len = strlen(t->letters);

	for (size_t i = 0; i < t->count; i++) {
		if (strcmp(t->specs[i]->name, spec->name) == 0)
			return;
	}
	if (t->count == LONG_OPTIONS_MAX)
		abort(); /* our own table */
	if (spec->letter != 0 && !letter_taken(t, spec->letter)) {
		t->letters[len++] = spec->letter;
		if (spec->type != OPTION_FLAG)
			t->letters[len++] = ':';
		t->letters[len] = '\0';
	}
	t->longs[t->count] = (struct option){
		.name = spec->name,
		.has_arg = spec->type == OPTION_FLAG ? no_argument : required_argument,
		.val = CODE_LONG + (int)t->count,
	};
	t->specs[t->count++] = spec;
}

static void table_fill(struct option_table *t, const struct command *command, const char *prefix)
{
	memset(t, 0, sizeof(*t));
	snprintf(t->letters, sizeof(t->letters), "%s:", prefix);
	if (command != NULL) {
		for (const struct option_spec *s = command->options; s != NULL && s->name != NULL;
		     s++)
			table_add(t, s);
	}
	for (const struct option_spec *s = global_options; s->name != NULL; s++)
		table_add(t, s);
}

static int complain_unknown_option(const struct option_table *t, const struct command *command,
				   const char *arg)
{
	const char *names[LONG_OPTIONS_MAX + 1] = {NULL};
	char word[64] = "";
	const char *nearest;

	for (size_t i = 0; i < t->count; i++)
		names[i] = t->specs[i]->name;
	if (strncmp(arg, "--", 2) == 0)
		snprintf(word, sizeof(word), "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
	nearest = word[0] != '\0' ? text_nearest(word, names) : NULL;
	if (nearest != NULL)
		complain("unknown option --%s; did you mean --%s?", word, nearest);
	else
		complain("unknown option %s; see witnessctl %s%s--help", arg,
			 command != NULL ? command->path : "", command != NULL ? " " : "");
	return EXIT_USAGE;
}

static int complain_words(const struct option_spec *spec, const char *value)
{
	const char *nearest = text_nearest(value, spec->words);
	char all[256] = "";

	for (size_t i = 0; spec->words[i] != NULL; i++) {
		size_t used = strlen(all);

		snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "", spec->words[i]);
	}
	if (nearest != NULL)
		complain("--%s: \"%s\" is none of %s; did you mean \"%s\"?", spec->name, value, all,
			 nearest);
	else
		complain("--%s: \"%s\" is none of %s", spec->name, value, all);
	return EXIT_USAGE;
}

static int value_check(const struct option_spec *spec, const char *value)
{
	uint64_t number;

	switch (spec->type) {
	case OPTION_NUMBER:
		if (text_to_u64(value, 0, UINT64_MAX, &number) == 0)
			return 0;
		complain("--%s: \"%s\" is not a number", spec->name, value);
		return EXIT_USAGE;
	case OPTION_DURATION:
		if (text_to_duration_ms(value, &number) == 0)
			return 0;
		complain("--%s: \"%s\" is not a duration; write it with a unit, as in 250ms, 30s, "
			 "5m, 24h or 90d",
			 spec->name, value);
		return EXIT_USAGE;
	case OPTION_WORD:
		for (size_t i = 0; spec->words[i] != NULL; i++) {
			if (strcmp(spec->words[i], value) == 0)
				return 0;
		}
		return complain_words(spec, value);
	default:
		return 0;
	}
}

static int option_add(struct invocation *inv, const struct option_spec *spec, const char *value)
{
	int rv = value_check(spec, value);

	if (rv != 0)
		return rv;
	if (!spec->repeat && option_given(inv, spec->name)) {
		complain("--%s is given twice", spec->name);
		return EXIT_USAGE;
	}
	if (inv->option_count == INVOCATION_OPTIONS_MAX) {
		complain("more than %d options", INVOCATION_OPTIONS_MAX);
		return EXIT_USAGE;
	}
	inv->options[inv->option_count].spec = spec;
	inv->options[inv->option_count].value = value;
	inv->option_count++;
	return 0;
}

/* Reads options up to the first word (prefix "+") or all of them (prefix ""), into `inv`.
 * optind tells where it stopped. */
static int options_read(int argc, char **argv, const struct command *command, const char *prefix,
			struct invocation *inv)
{
	struct option_table t;

	table_fill(&t, command, prefix);
	opterr = 0;
	optind = 0; /* glibc: start anew */
	for (;;) {
		const struct option_spec *spec = NULL;
		int before = optind == 0 ? 1 : optind;
		int code = getopt_long(argc, argv, t.letters, t.longs, NULL);
		int rv;

		if (code == -1)
			return 0;
		if (code >= CODE_LONG)
			spec = t.specs[code - CODE_LONG];
		for (size_t i = 0; spec == NULL && i < t.count; i++) {
			if (t.specs[i]->letter == code)
				spec = t.specs[i];
		}
		if (code == ':') {
			complain("option %s needs a value", argv[optind - 1]);
			return EXIT_USAGE;
		}
		if (spec == NULL && optopt >= CODE_LONG) {
			complain("option --%s takes no value", t.specs[optopt - CODE_LONG]->name);
			return EXIT_USAGE;
		}
		if (spec == NULL) {
			char letter[3] = {'-', (char)optopt, '\0'};

			return complain_unknown_option(&t, command,
						       optopt != 0	 ? letter
						       : optind > before ? argv[optind - 1]
									 : argv[before]);
		}
		rv = option_add(inv, spec, optarg);
		if (rv != 0)
			return rv;
	}
}

static bool is_prefix_of_command(const char *path)
{
	size_t len = strlen(path);

	for (const struct command *c = commands; c->path != NULL; c++) {
		if (strncmp(c->path, path, len) == 0 && c->path[len] == ' ')
			return true;
	}
	return false;
}

/* The words that may stand behind `path` ("" or "site"); room for 64. */
static void next_words(const char *path, const char **words, char store[64][32])
{
	size_t len = strlen(path), count = 0;

	for (const struct command *c = commands; c->path != NULL; c++) {
		const char *rest = c->path;
		bool known = false;

		if (len > 0) {
			if (strncmp(c->path, path, len) != 0 || c->path[len] != ' ')
				continue;
			rest = c->path + len + 1;
		}
		if (rest[0] == '_')
			continue;
		snprintf(store[count], 32, "%.*s", (int)strcspn(rest, " "), rest);
		for (size_t i = 0; i < count; i++)
			known = known || strcmp(words[i], store[count]) == 0;
		if (!known && count < 63) {
			words[count] = store[count];
			count++;
		}
	}
	words[count] = NULL;
}

static int complain_unknown_word(const char *path, const char *word)
{
	const char *words[64];
	char store[64][32];
	const char *nearest;
	const char *space = path[0] != '\0' ? " " : "";

	next_words(path, words, store);
	nearest = text_nearest(word, words);
	if (nearest != NULL)
		complain("unknown command \"%s%s%s\"; did you mean \"%s%s%s\"?", path, space, word,
			 path, space, nearest);
	else
		complain("unknown command \"%s%s%s\"; see witnessctl %s%s--help", path, space, word,
			 path, space);
	return EXIT_USAGE;
}

static int complain_incomplete(const char *path)
{
	const char *words[64];
	char store[64][32];
	char all[512] = "";

	next_words(path, words, store);
	for (size_t i = 0; words[i] != NULL; i++) {
		size_t used = strlen(all);

		snprintf(all + used, sizeof(all) - used, "%s%s", i > 0 ? ", " : "", words[i]);
	}
	complain("\"%s\" needs one of: %s", path, all);
	return EXIT_USAGE;
}

/* What names an object becomes a part of a path, where these mean something else. */
static int check_name(const struct command *c, const char *name)
{
	const char *wrong = NULL;

	if (name[0] == '\0')
		wrong = "it is empty";
	else if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		wrong = "dots alone are no name";
	else if (strlen(name) > LIMIT_NAME)
		wrong = "it is longer than 64 bytes";
	if (wrong == NULL)
		return 0;
	complain("%.*s: %s; usage: witnessctl %s %s", (int)strcspn(c->args, "."), c->args, wrong,
		 c->path, c->args);
	return EXIT_USAGE;
}

static int check_arguments(const struct invocation *inv)
{
	static const char *const names[] = {"NAME", "NODE", "ID", "SERIAL", NULL};
	const struct command *c = inv->command;

	if (inv->arg_count < c->min_args) {
		complain("%s is missing; usage: witnessctl %s %s", c->args, c->path, c->args);
		return EXIT_USAGE;
	}
	if (inv->arg_count > c->max_args) {
		complain("\"%s\" is one argument too many; usage: witnessctl %s%s%s",
			 inv->args[c->max_args], c->path, c->args[0] != '\0' ? " " : "", c->args);
		return EXIT_USAGE;
	}
	for (size_t i = 0; names[i] != NULL; i++) {
		if (strncmp(c->args, names[i], strlen(names[i])) != 0)
			continue;
		for (size_t k = 0; k < inv->arg_count; k++) {
			if (check_name(c, inv->args[k]) != 0)
				return EXIT_USAGE;
		}
	}
	return 0;
}

/* Follows the words of argv into the table, with options between them. On 0 *ret_command is the
 * command and *ret_at where the rest begins; NULL if the words ended before one was complete. */
static int path_read(int argc, char **argv, struct invocation *inv, char path[PATH_MAX_LEN],
		     int *ret_at)
{
	int at = 0;

	path[0] = '\0';
	for (;;) {
		size_t len = strlen(path);
		int rv = options_read(argc - at, argv + at, NULL, "+", inv);

		if (rv != 0)
			return rv;
		at += optind;
		*ret_at = at;
		if (at >= argc)
			return 0;
		if (len + 1 + strlen(argv[at]) >= PATH_MAX_LEN)
			return complain_unknown_word(path, argv[at]);
		snprintf(path + len, PATH_MAX_LEN - len, "%s%s", len > 0 ? " " : "", argv[at]);
		inv->command = command_find(path);
		if (inv->command != NULL)
			return 0;
		if (!is_prefix_of_command(path)) {
			path[len] = '\0';
			return complain_unknown_word(path, argv[at]);
		}
	}
}

int command_parse(int argc, char **argv, struct invocation *ret, int *ret_code)
{
	char path[PATH_MAX_LEN];
	int at = 0;
	int rv;

	memset(ret, 0, sizeof(*ret));
	rv = path_read(argc, argv, ret, path, &at);
	if (rv != 0)
		return rv;
	if (ret->command != NULL) {
		/* argv[at] is the command's last word and stands where getopt expects the program.
		 */
		rv = options_read(argc - at, argv + at, ret->command, "", ret);
		if (rv != 0)
			return rv;
		ret->args = argv + at + optind;
		ret->arg_count = (size_t)(argc - at - optind);
	}
	if (option_given(ret, "version")) {
		printf("witnessctl %s\n", TIEBREAK_VERSION);
		*ret_code = EXIT_OK;
		return -1;
	}
	if (option_given(ret, "help") || (ret->command == NULL && path[0] == '\0')) {
		help_print(stdout, path, ret->command);
		*ret_code = option_given(ret, "help") ? EXIT_OK : EXIT_USAGE;
		return -1;
	}
	if (ret->command == NULL)
		return complain_incomplete(path);
	return check_arguments(ret);
}
