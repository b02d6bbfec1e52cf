#include "cli/help.h"

#include <string.h>

enum { WIDTH = 80, OPTION_INDENT = 26 };

static const struct {
	int code;
	const char *meaning;
} exit_codes[] = {
	{EXIT_OK, "done"},
	{EXIT_REFUSED, "refused or failed; the message says why"},
	{EXIT_USAGE, "the command line or the input file is wrong; nothing was sent"},
	{EXIT_UNREACHABLE, "no server answered"},
	{EXIT_NOT_FOUND, "no such site, board, token or certificate"},
	{EXIT_NO_QUORUM, "the cluster has no quorum, or the wait was too long"},
};

static const struct {
	const char *name, *meaning;
} environment[] = {
	{"TIEBREAK_SERVER", "as --server"},
	{"TIEBREAK_SOCKET", "as --socket"},
	{"TIEBREAK_TOKEN",
	 "as --token; better there than on the command line, where others see it"},
	{"NO_COLOR", "no colours"},
};

static const char intro[] =
	"witnessctl drives a tiebreak witness cluster: a few small boards that give their vote to "
	"exactly one side of each two-node site. On a board, as root, it needs no set-up: it talks "
	"to the board's own socket. From elsewhere it needs --server and --token (or --cert, --key "
	"and --ca).";

/* Wraps one paragraph; the cursor stands in column `at`, later lines begin in `indent`. */
static void paragraph_print(FILE *out, const char *text, size_t len, int indent, int at)
{
	size_t i = 0;
	bool first = true;

	while (i < len) {
		size_t word = 0;

		while (i + word < len && text[i + word] != ' ' && text[i + word] != '\n')
			word++;
		if (!first && at + 1 + (int)word > WIDTH) {
			fprintf(out, "\n%*s", indent, "");
			at = indent;
		} else if (!first) {
			fputc(' ', out);
			at++;
		}
		fprintf(out, "%.*s", (int)word, text + i);
		at += (int)word;
		first = false;
		i += word;
		while (i < len && (text[i] == ' ' || text[i] == '\n'))
			i++;
	}
	fputc('\n', out);
}

/* Paragraphs are separated by empty lines; those that begin with a blank are printed as they are.
 */
static void text_print(FILE *out, const char *text, int indent)
{
	while (*text != '\0') {
		const char *end = strstr(text, "\n\n");
		size_t len = end != NULL ? (size_t)(end - text) : strlen(text);

		if (text[0] == ' ') {
			fprintf(out, "%.*s\n", (int)len, text);
		} else {
			fprintf(out, "%*s", indent, "");
			paragraph_print(out, text, len, indent, indent);
		}
		text += len;
		if (*text != '\0') {
			text += 2;
			fputc('\n', out);
		}
	}
}

static void option_title(char *title, size_t size, const struct option_spec *s)
{
	int len;

	if (s->letter != 0)
		len = snprintf(title, size, "-%c, --%s", s->letter, s->name);
	else
		len = snprintf(title, size, "    --%s", s->name);
	if (s->type != OPTION_FLAG)
		snprintf(title + len, size - (size_t)len, " %s", s->value);
}

static void options_print(FILE *out, const struct option_spec *options,
			  const struct option_spec *hiders)
{
	for (; options != NULL && options->name != NULL; options++) {
		char title[128];
		int at = OPTION_INDENT;
		bool hidden = false;

		for (const struct option_spec *h = hiders; h != NULL && h->name != NULL; h++)
			hidden = hidden || strcmp(h->name, options->name) == 0;
		if (hidden)
			continue;
		option_title(title, sizeof(title), options);
		if (strlen(title) + 4 > OPTION_INDENT)
			fprintf(out, "  %s\n%*s", title, OPTION_INDENT, "");
		else
			fprintf(out, "  %-*s", OPTION_INDENT - 2, title);
		paragraph_print(out, options->help, strlen(options->help), OPTION_INDENT, at);
	}
}

static void examples_print(FILE *out, const char *const *examples)
{
	for (; examples != NULL && *examples != NULL; examples++) {
		const char *what = *examples + strlen(*examples) + 1;

		if (what[0] != '\0')
			fprintf(out, "  # %s\n", what);
		fprintf(out, "  %s\n", *examples);
	}
}

static void exit_codes_print(FILE *out)
{
	fprintf(out, "\nExit codes:\n");
	for (size_t i = 0; i < sizeof(exit_codes) / sizeof(exit_codes[0]); i++)
		fprintf(out, "  %d  %s\n", exit_codes[i].code, exit_codes[i].meaning);
}

static void command_print(FILE *out, const struct command *c)
{
	fprintf(out, "Usage: witnessctl %s%s%s [options]\n\n", c->path,
		c->args[0] != '\0' ? " " : "", c->args);
	fprintf(out, "%s.\n\n", c->summary);
	if (c->description[0] != '\0') {
		text_print(out, c->description, 0);
		fputc('\n', out);
	}
	if (c->options != NULL) {
		fprintf(out, "Options:\n");
		options_print(out, c->options, NULL);
		fputc('\n', out);
	}
	fprintf(out, "Options of every command:\n");
	options_print(out, global_options, c->options);
	if (c->examples != NULL) {
		fprintf(out, "\nExamples:\n");
		examples_print(out, c->examples);
	}
	exit_codes_print(out);
}

static bool in_group(const struct command *c, const char *group)
{
	size_t len = strlen(group);

	if (c->path[0] == '_')
		return false;
	if (len == 0)
		return strchr(c->path, ' ') == NULL;
	return strncmp(c->path, group, len) == 0 && c->path[len] == ' ';
}

static void group_print(FILE *out, const char *group)
{
	for (const struct command *c = commands; c->path != NULL; c++) {
		char title[96];

		if (!in_group(c, group))
			continue;
		snprintf(title, sizeof(title), "%s%s%s", c->path, c->args[0] != '\0' ? " " : "",
			 c->args);
		if (strlen(title) + 4 > OPTION_INDENT)
			fprintf(out, "  %s\n%*s%s\n", title, OPTION_INDENT, "", c->summary);
		else
			fprintf(out, "  %-*s%s\n", OPTION_INDENT - 2, title, c->summary);
	}
}

static void program_print(FILE *out)
{
	fprintf(out, "Usage: witnessctl COMMAND [arguments] [options]\n\n");
	text_print(out, intro, 0);
	for (const struct command_group *g = command_groups; g->name != NULL; g++) {
		fprintf(out, "\n%s:\n", g->summary);
		group_print(out, g->name);
	}
	fprintf(out, "\nOptions of every command:\n");
	options_print(out, global_options, NULL);
	exit_codes_print(out);
	fprintf(out, "\nEvery command explains itself: witnessctl COMMAND --help. The manual: "
		     "man witnessctl.\n");
}

void help_print(FILE *out, const char *path, const struct command *command)
{
	if (command != NULL) {
		command_print(out, command);
		return;
	}
	if (path[0] == '\0') {
		program_print(out);
		return;
	}
	fprintf(out, "Usage: witnessctl %s COMMAND [arguments] [options]\n\nCommands:\n", path);
	group_print(out, path);
	fprintf(out, "\nEvery command explains itself: witnessctl %s COMMAND --help.\n", path);
}

/* Text for man(7): backslashes, and dots and quotes at the start of a line. */
static void roff(FILE *out, const char *text, size_t len)
{
	bool line_start = true;

	for (size_t i = 0; i < len; i++) {
		if (line_start && (text[i] == '.' || text[i] == '\''))
			fputs("\\&", out);
		if (text[i] == '\\')
			fputs("\\e", out);
		else if (text[i] == '-')
			fputs("\\-", out);
		else
			fputc(text[i], out);
		line_start = text[i] == '\n';
	}
}

static void roff_line(FILE *out, const char *text)
{
	roff(out, text, strlen(text));
	fputc('\n', out);
}

static void roff_text(FILE *out, const char *text)
{
	while (*text != '\0') {
		const char *end = strstr(text, "\n\n");
		size_t len = end != NULL ? (size_t)(end - text) : strlen(text);

		if (text[0] == ' ')
			fputs(".nf\n", out);
		roff(out, text, len);
		fputs(text[0] == ' ' ? "\n.fi\n" : "\n", out);
		text += len;
		if (*text != '\0') {
			text += 2;
			fputs(".PP\n", out);
		}
	}
}

static void roff_options(FILE *out, const struct option_spec *options)
{
	for (; options != NULL && options->name != NULL; options++) {
		fputs(".TP\n.B ", out);
		if (options->letter != 0)
			fprintf(out, "\\-%c, ", options->letter);
		fputs("\\-\\-", out);
		roff(out, options->name, strlen(options->name));
		if (options->type != OPTION_FLAG)
			fprintf(out, " \\fI%s\\fP", options->value);
		fputc('\n', out);
		roff_line(out, options->help);
	}
}

static void roff_command(FILE *out, const struct command *c)
{
	fputs(".SS witnessctl ", out);
	roff(out, c->path, strlen(c->path));
	fprintf(out, " %s\n%s.\n.PP\n", c->args, c->summary);
	roff_text(out, c->description);
	roff_options(out, c->options);
	if (c->examples == NULL)
		return;
	fputs(".PP\nExamples:\n.PP\n.nf\n", out);
	for (const char *const *e = c->examples; *e != NULL; e++) {
		const char *what = *e + strlen(*e) + 1;

		if (what[0] != '\0') {
			fputs("# ", out);
			roff_line(out, what);
		}
		roff_line(out, *e);
	}
	fputs(".fi\n", out);
}

void help_manual(FILE *out)
{
	fprintf(out, ".TH WITNESSCTL 1 \"\" \"tiebreak %s\" \"User Commands\"\n", TIEBREAK_VERSION);
	fputs(".SH NAME\nwitnessctl \\- drive a tiebreak witness cluster\n", out);
	fputs(".SH SYNOPSIS\n.B witnessctl\n.I COMMAND\n[arguments] [options]\n", out);
	fputs(".SH DESCRIPTION\n", out);
	roff_text(out, intro);
	fputs(".SH OPTIONS\n", out);
	roff_options(out, global_options);
	fputs(".SH COMMANDS\n", out);
	for (const struct command *c = commands; c->path != NULL; c++) {
		if (c->path[0] != '_')
			roff_command(out, c);
	}
	fputs(".SH EXIT STATUS\n", out);
	for (size_t i = 0; i < sizeof(exit_codes) / sizeof(exit_codes[0]); i++)
		fprintf(out, ".TP\n.B %d\n%s\n", exit_codes[i].code, exit_codes[i].meaning);
	fputs(".SH ENVIRONMENT\n", out);
	for (size_t i = 0; i < sizeof(environment) / sizeof(environment[0]); i++) {
		fprintf(out, ".TP\n.B %s\n", environment[i].name);
		roff_line(out, environment[i].meaning);
	}
	fputs(".SH FILES\n.TP\n.I /run/tiebreak/witnessd.sock\nthe board's own socket, used when "
	      "no "
	      "server is named\n",
	      out);
	fputs(".SH SEE ALSO\n.BR witnessd (8),\n.BR corosync\\-qdevice (8)\n", out);
}
