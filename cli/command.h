/* command.h: what the command line can say. One table (commands.c) of which parsing, help, the
 * manual page, suggestions and completion are made. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes, the same for every command (and in the manual page). */
enum {
	EXIT_OK = 0,
	EXIT_REFUSED = 1, /* the cluster or this program refused, or something failed */
	EXIT_USAGE = 2, /* the command line or an input file is wrong; nothing was sent */
	EXIT_UNREACHABLE = 3, /* no server answered */
	EXIT_NOT_FOUND = 4,
	EXIT_NO_QUORUM = 5, /* the cluster cannot decide now, or the wait was too long */
};

enum option_type {
	OPTION_FLAG,
	OPTION_TEXT,
	OPTION_NUMBER, /* decimal */
	OPTION_DURATION, /* "90s" */
	OPTION_WORD, /* one of `words` */
	OPTION_FILE,
};

/* What completes an argument or a value, asked of the server while somebody types. */
enum complete {
	COMPLETE_NONE,
	COMPLETE_FILE,
	COMPLETE_SITE,
	COMPLETE_NODE,
	COMPLETE_TOKEN,
	COMPLETE_IMAGE,
	COMPLETE_VM,
	COMPLETE_ADDRESS,
};

struct option_spec {
	const char *name; /* without dashes; NULL ends a list */
	char letter; /* 0: none */
	enum option_type type;
	bool repeat; /* may be given more than once */
	const char *value; /* its name in the help; NULL for flags */
	const char *const *words; /* OPTION_WORD; NULL-terminated */
	const char *help; /* one or two sentences */
	enum complete complete;
};

struct invocation;

struct command {
	const char *path; /* "site import"; NULL ends the table */
	const char *args; /* "NAME...", "[NODE]", "FILE"; "" none */
	unsigned min_args, max_args;
	enum complete complete; /* of the arguments */
	bool local; /* only through the board's own socket */
	const char *summary; /* one line, no full stop */
	const char *description; /* paragraphs, separated by an empty line */
	const struct option_spec *options; /* NULL: none of its own */
	const char *const *examples; /* "command line\0what it does" pairs, NULL-terminated */
	int (*run)(struct invocation *inv); /* returns an exit code */
};

/* A group of commands: "site". */
struct command_group {
	const char *name; /* NULL ends the table */
	const char *summary;
};

extern const struct command commands[];
extern const struct command_group command_groups[];
extern const struct option_spec global_options[];

enum { INVOCATION_OPTIONS_MAX = 256 };

/* A command line that was understood. */
struct invocation {
	const struct command *command;
	size_t option_count;
	struct {
		const struct option_spec *spec;
		const char *value; /* NULL for flags; points into argv */
	} options[INVOCATION_OPTIONS_MAX];
	size_t arg_count;
	char **args; /* into argv; arg_count of them */
	struct client *client; /* made at first use (api.h) */
};

/* The last value given, NULL if none. The command's options hide global ones of the same name. */
const char *option_text(const struct invocation *inv, const char *name);
bool option_given(const struct invocation *inv, const char *name);
/* The n-th value of a repeatable option, NULL if there are fewer. */
const char *option_nth(const struct invocation *inv, const char *name, size_t n);
/* Values were checked when parsed; `otherwise` if not given. */
uint64_t option_number(const struct invocation *inv, const char *name, uint64_t otherwise);
uint64_t option_duration_ms(const struct invocation *inv, const char *name, uint64_t otherwise);

/* Understands a command line. 0: *ret is ready to run. EXIT_USAGE: told on stderr. -1 with
 * *ret_code: help, version or the like was asked for and printed. argv is reordered. */
int command_parse(int argc, char **argv, struct invocation *ret, int *ret_code);

/* The command of exactly this path, NULL if none. */
const struct command *command_find(const char *path);
/* An option of the command or a global one; NULL if none. `command` may be NULL. */
const struct option_spec *command_option(const struct command *command, const char *name);

/* "<program>: ..." to stderr. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
