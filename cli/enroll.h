/* enroll.h: what the nodes of a site need to trust the witness and be trusted by it. */
#pragma once
#include "cli/api.h"

enum { ENROLL_CSR_MAX = 65536 };

/* Reads a certificate request, PEM or DER, as text for the API (PEM, or base64 of the DER); the
 * caller frees it. NULL: told on stderr. */
char *enroll_request_read(const char *path);
/* POST /v1/sites/NAME:enroll. EXIT_OK and *ret (free with tb__enrollment__free_unpacked), or the
 * exit code, told. `raw` (may be NULL) gets the JSON. */
int enroll_call(struct invocation *inv, const char *site, const char *csr, Tb__Enrollment **ret,
		struct buf *raw);
/* token.c: makes a token for the agents of the site and prints it with what to do next. */
int token_make_agent(struct invocation *inv, const char *site);
