/* words.c: finds the word that was said, does it, and says how it went. */
#include "guest.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct word *const tables[] = {
	system_words, block_words, net_words,	vsock_words,
	memory_words, cpu_words,   input_words, board_words,
};

static const struct word *word_find(const char *name)
{
	for (size_t table = 0; table < sizeof tables / sizeof *tables; table++)
		for (const struct word *word = tables[table]; word->name; word++)
			if (strcmp(word->name, name) == 0)
				return word;
	return NULL;
}

static int word_call(const struct word *word, struct call *call)
{
	int error = word->run(call);
	if (error == 0)
		say("RESULT %s ok%s%s", call->name, *call->result ? " " : "", call->result);
	else
		say("RESULT %s failed: %s: %s", call->name, call->what, strerror(-error));
	return error;
}

static int word_beside(const struct word *word, struct call *call)
{
	pid_t child = fork();
	if (child == 0)
		_exit(word_call(word, call) == 0 ? 0 : 1);
	return child < 0 ? -errno : 0;
}

static int word_do(char *text)
{
	bool beside = *text == '&';
	struct call call = {.name = text + beside};
	char *rest = strchr(text, '=');
	if (rest)
		*rest++ = '\0';
	while (rest && call.count < CALL_ARGS)
		call.args[call.count++] = strsep(&rest, ",");
	const struct word *word = word_find(call.name);
	if (!word) {
		say("RESULT %s failed: unknown word", call.name);
		return -EINVAL;
	}
	return beside ? word_beside(word, &call) : word_call(word, &call);
}

int words_do(char *line)
{
	int first_error = 0;
	for (char *text = strsep(&line, " \t\r\n"); text; text = strsep(&line, " \t\r\n")) {
		int error = *text ? word_do(text) : 0;
		if (error != 0 && first_error == 0)
			first_error = error;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return first_error;
}
