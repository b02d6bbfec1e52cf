/* api_auth.c: who asks, and what they may do. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "lib/hash.h"
#include "lib/mem.h"
#include "witnessd/agent_session.h"
#include "witnessd/api_call.h"
#include "witnessd/token.h"

/* --- failed attempts --- */

enum { SLOTS = 256, FAILURES_MAX = 20, WINDOW_MS = 60000 };

struct slot {
	uint64_t address; /* hash; 0: free */
	uint64_t since_ms;
	unsigned failures;
};

struct api_limiter {
	struct slot slots[SLOTS];
};

struct api_limiter *api_limiter_new(void)
{
	return mem_zalloc(sizeof(struct api_limiter));
}

void api_limiter_free(struct api_limiter *l)
{
	free(l);
}

/* The address without the port, which changes with every connection. */
static uint64_t address_hash(const char *address)
{
	const char *colon = strrchr(address, ':');
	size_t len = colon != NULL ? (size_t)(colon - address) : strlen(address);

	return hash_bytes(address, len) | 1;
}

static struct slot *limiter_slot(struct api_limiter *l, const char *address, uint64_t now_ms)
{
	uint64_t hash = address_hash(address);

	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &l->slots[i];

		if (s->address == hash && now_ms - s->since_ms < WINDOW_MS)
			return s;
	}
	return NULL;
}

bool api_limiter_blocked(struct api_limiter *l, const char *address, uint64_t now_ms,
			 unsigned *ret_retry_s)
{
	const struct slot *s = limiter_slot(l, address, now_ms);

	if (s == NULL || s->failures < FAILURES_MAX)
		return false;
	*ret_retry_s = (unsigned)((s->since_ms + WINDOW_MS - now_ms + 999) / 1000);
	return true;
}

void api_limiter_failed(struct api_limiter *l, const char *address, uint64_t now_ms)
{
	struct slot *s = limiter_slot(l, address, now_ms);

	if (s == NULL) {
		s = &l->slots[0];
		for (unsigned i = 1; i < SLOTS; i++)
			if (l->slots[i].since_ms < s->since_ms)
				s = &l->slots[i];
		*s = (struct slot){.address = address_hash(address), .since_ms = now_ms};
	}
	s->failures++;
}

/* --- the Unix socket --- */

static int identify_local(struct api *a, const struct api_request *request,
			  struct api_principal *ret, const char **ret_why)
{
	char *name;

	if (request->uid != 0 && request->uid != geteuid()) {
		*ret_why = "the socket of this board is for root; use sudo, or the network with a "
			   "token";
		return -EACCES;
	}
	name = api_node_name(a);
	ret->role = TB__ROLE__ROLE_ADMIN;
	snprintf(ret->actor, sizeof(ret->actor), "root@%s", name);
	free(name);
	return 0;
}

/* --- bearer tokens --- */

static const char *token_problem(const struct api *a, const Tb__Token *token)
{
	if (token->revoked)
		return "this token was revoked; ask an administrator for a new one";
	if (token->expires_ms != 0 && token->expires_ms <= api_now_ms(a))
		return "this token has expired; ask an administrator for a new one";
	return NULL;
}

/* The CA that the token was made for is the cluster's, or was and is still believed. */
static bool token_is_of(const Tb__Cluster *cluster, const char *ca_sha256)
{
	return strcasecmp(cluster->ca_sha256, ca_sha256) == 0 ||
	       (cluster->old_ca_sha256[0] != '\0' &&
		strcasecmp(cluster->old_ca_sha256, ca_sha256) == 0);
}

static int identify_token(struct api *a, const char *text, struct api_principal *ret,
			  const char **ret_why)
{
	struct store *s = api_store(a);
	Tb__Cluster *cluster = NULL;
	struct token_parts parts;
	Tb__Token *token = NULL;
	int rv = -EACCES;

	if (token_parse(text, &parts) != 0) {
		*ret_why = "that is not a token; copy the whole text, it begins with tb1.";
		return -EACCES;
	}
	*ret_why = "this cluster does not know that token";
	if (s == NULL || store_cluster_get(s, &cluster) != 0)
		return -ENOENT;
	if (!token_is_of(cluster, parts.ca_sha256)) {
		*ret_why = "this token belongs to another cluster";
	} else if (store_token_get(s, parts.id, &token) != 0) {
		rv = -ENOENT;
	} else if (token->secret_sha256.len == 32 &&
		   CRYPTO_memcmp(token->secret_sha256.data, parts.secret_sha256, 32) == 0) {
		const char *problem = token_problem(a, token);

		if (problem == NULL) {
			ret->role = token->role;
			snprintf(ret->actor, sizeof(ret->actor), "token:%s", token->id);
			snprintf(ret->token, sizeof(ret->token), "%s", token->id);
			snprintf(ret->token_ca_sha256, sizeof(ret->token_ca_sha256), "%s",
				 parts.ca_sha256);
			snprintf(ret->site, sizeof(ret->site), "%s", token->site);
			snprintf(ret->tenant, sizeof(ret->tenant), "%s", token->tenant);
			rv = 0;
		} else {
			*ret_why = problem;
		}
	}
	tb__token__free_unpacked(token, NULL);
	tb__cluster__free_unpacked(cluster, NULL);
	mem_wipe(&parts, sizeof(parts));
	return rv;
}

/* --- client certificates --- */

static int client_role(const char *uri, Tb__Role *ret)
{
	static const char head[] = "tiebreak:client/";
	struct json_error error;
	int role;

	if (strncmp(uri, head, sizeof(head) - 1) != 0 ||
	    json_enum_parse(&tb__role__descriptor, uri + sizeof(head) - 1, &role, &error) != 0 ||
	    role < TB__ROLE__ROLE_VIEWER || role > TB__ROLE__ROLE_ADMIN)
		return -EINVAL;
	*ret = (Tb__Role)role;
	return 0;
}

/* A connection may be older than the end of a rotation of the CA. */
static bool is_believed(const struct api *a, uint64_t issuer, const char **ret_why)
{
	const struct tls_cas *believed = a->config.believed;

	*ret_why = "its CA is believed no more";
	return believed == NULL || tls_cas_hold(believed, issuer);
}

/* Every certificate is recorded before it leaves the cluster, so one that the model does not know
 * was dropped from it or is newer than this board's model. */
static int certificate_holds(struct api *a, const char *serial, uint64_t issuer,
			     const char **ret_why)
{
	struct store *s = api_store(a);
	Tb__Certificate *certificate;
	int rv = 0;

	if (!is_believed(a, issuer, ret_why))
		return -EACCES;
	if (s == NULL || store_certificate_get(s, serial, &certificate) != 0) {
		*ret_why = "this cluster does not know that client certificate";
		return -ENOENT;
	}
	if (certificate->revoked) {
		*ret_why = "this client certificate was revoked";
		rv = -EACCES;
	}
	tb__certificate__free_unpacked(certificate, NULL);
	return rv;
}

/* An agent may have its certificate made anew, nothing else. */
static int identify_agent(struct api *a, const struct tls_peer *peer, struct api_principal *ret,
			  const char **ret_why)
{
	char *site;
	int rv = agent_uri_parse(peer->uri, &site, &ret->agent_node);

	if (rv != 0)
		return rv;
	rv = certificate_holds(a, peer->serial, peer->issuer, ret_why);
	if (rv == 0) {
		ret->role = TB__ROLE__ROLE_AGENT;
		snprintf(ret->site, sizeof(ret->site), "%s", site);
		snprintf(ret->actor, sizeof(ret->actor), "agent:%s/%u", site, ret->agent_node);
		snprintf(ret->serial, sizeof(ret->serial), "%s", peer->serial);
		ret->issuer = peer->issuer;
	}
	free(site);
	return rv;
}

static int identify_certificate(struct api *a, const struct tls_peer *peer,
				struct api_principal *ret, const char **ret_why)
{
	Tb__Role role;
	int rv;

	rv = identify_agent(a, peer, ret, ret_why);
	if (rv != -EINVAL)
		return rv;
	if (client_role(peer->uri, &role) != 0) {
		*ret_why = "this client certificate is not one for the API";
		return -EACCES;
	}
	rv = certificate_holds(a, peer->serial, peer->issuer, ret_why);
	if (rv != 0)
		return rv;
	ret->role = role;
	snprintf(ret->actor, sizeof(ret->actor), "cert:%s", peer->common_name);
	snprintf(ret->serial, sizeof(ret->serial), "%s", peer->serial);
	ret->issuer = peer->issuer;
	return 0;
}

int api_identify(struct api *a, const struct api_request *request, struct api_principal *ret,
		 const char **ret_why)
{
	*ret = (struct api_principal){.role = TB__ROLE__ROLE_NONE};
	if (request->local)
		return identify_local(a, request, ret, ret_why);
	if (request->authorization != NULL) {
		if (strncasecmp(request->authorization, "Bearer ", 7) != 0) {
			*ret_why = "the Authorization header must be \"Bearer TOKEN\"";
			return -EACCES;
		}
		return identify_token(a, request->authorization + 7, ret, ret_why);
	}
	if (request->certificate != NULL && request->certificate->present)
		return identify_certificate(a, request->certificate, ret, ret_why);
	return 0;
}

bool api_knows(struct api *a, const struct api_request *request)
{
	struct api_principal who;
	const char *why;

	return api_identify(a, request, &who, &why) == 0 && who.role != TB__ROLE__ROLE_NONE;
}

static bool token_holds(struct api *a, const struct api_principal *who)
{
	struct store *s = api_store(a);
	Tb__Cluster *cluster = NULL;
	Tb__Token *token = NULL;
	bool holds = s != NULL && store_cluster_get(s, &cluster) == 0 &&
		     token_is_of(cluster, who->token_ca_sha256) &&
		     store_token_get(s, who->token, &token) == 0 &&
		     token_problem(a, token) == NULL && token->role == who->role;

	tb__token__free_unpacked(token, NULL);
	tb__cluster__free_unpacked(cluster, NULL);
	return holds;
}

bool api_principal_holds(struct api *a, const struct api_principal *who)
{
	const char *why;

	if (who->serial[0] != '\0')
		return certificate_holds(a, who->serial, who->issuer, &why) == 0;
	return who->token[0] == '\0' || token_holds(a, who);
}

bool api_allowed(const struct api_principal *who, const struct api_route *route, const char *arg)
{
	switch (route->role) {
	case API_OPEN:
		return true;
	case API_SOCKET:
		/* Only there nobody needs a token or a certificate to be an administrator. */
		return who->role == TB__ROLE__ROLE_ADMIN && who->token[0] == '\0' &&
		       who->serial[0] == '\0';
	case API_VIEWER:
	case API_OPERATOR:
	case API_ADMIN:
		break;
	}
	if (who->tenant[0] != '\0' && !route->tenant)
		return false;
	if (who->role == TB__ROLE__ROLE_SITE)
		return route->own_site && strcmp(who->site, arg) == 0;
	if (who->role == TB__ROLE__ROLE_AGENT)
		return route->own_agent && strcmp(who->site, arg) == 0;
	if (who->role < TB__ROLE__ROLE_VIEWER || who->role > TB__ROLE__ROLE_ADMIN)
		return false;
	return (int)who->role - TB__ROLE__ROLE_VIEWER >= (int)route->role - API_VIEWER;
}

/* A board whose model lags, above all one that has just joined and has none, must let the others in
 * to catch up. So a certificate of a CA that we believe, and that the model has never heard of
 * holds; one that it knows holds while it is not revoked and its board is in the cluster. */
int api_board_holds(struct api *a, uint64_t node, const char *serial, uint64_t issuer,
		    const char **ret_why)
{
	struct store *s = api_store(a);
	Tb__Certificate *certificate;
	Tb__Node *row;
	int rv = 0;

	if (!is_believed(a, issuer, ret_why))
		return -EACCES;
	if (s == NULL || store_certificate_get(s, serial, &certificate) != 0)
		return 0;
	if (certificate->revoked) {
		*ret_why = "its certificate was revoked";
		rv = -EACCES;
	} else if (store_node_get(s, node, &row) != 0) {
		*ret_why = "that board was removed from the cluster";
		rv = -EACCES;
	} else {
		tb__node__free_unpacked(row, NULL);
	}
	tb__certificate__free_unpacked(certificate, NULL);
	return rv;
}
