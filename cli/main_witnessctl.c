/* witnessctl: drives a tiebreak cluster through its HTTPS API. */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/client.h"
#include "cli/command.h"
#include "cli/renew.h"

int main(int argc, char **argv)
{
	static struct invocation inv;
	int rv, code = EXIT_OK;

	setlocale(LC_ALL, ""); /* column widths of UTF-8 text */
	signal(SIGPIPE, SIG_IGN);
	rv = command_parse(argc, argv, &inv, &code);
	if (rv == 0)
		code = inv.command->run(&inv);
	else if (rv > 0)
		code = rv;
	if (rv == 0 && code == EXIT_OK)
		renew_if_due(&inv);
	client_free(inv.client);
	if (fflush(stdout) != 0 && errno != EPIPE) {
		complain("cannot write the output: %s", strerror(errno));
		code = code == EXIT_OK ? EXIT_REFUSED : code;
	}
	return code;
}
