/* enroll.h: how a node gets its key and certificate: with a token of role agent, from any board. */
#pragma once
#include "agent/settings.h"

struct enroll_request {
	const char *board; /* host:port */
	const char *token; /* tb1.…; NULL: a renewal, with the certificate that is there */
	uint32_t node;
	const char *site; /* the one that the token is for */
	const char *state_dir; /* where agent.key, agent.crt and ca.crt go */
	const char *config; /* settings file, written if it is not there */
};

/* Tells on stdout what was done and what to do next, on stderr what went wrong with the remedy. 0
 * or a negative errno. */
int enroll_run(const struct enroll_request *request);
/* A new key and certificate for a node that is enrolled, from the first of its boards that gives
 * one. The agent must be told to read them (control "reload"). 0 or a negative errno; told. */
int enroll_renew(const struct settings *s);

/* The answer of the API: 0, its status code and where the body starts; -EPROTO: that is no HTTP
 * answer, or a piece is missing. Pure. */
int enroll_answer_parse(const char *text, size_t len, unsigned *ret_status, const char **ret_body,
			size_t *ret_body_len);
