/* trust.h: which board to believe. The only file of this room that says X509 or SSL.
 *
 * Boards are addressed by whatever reaches them, so the name in the URL is not compared. Instead
 * the chain must lead to the cluster's own CA, known by its SHA-256 (a token carries it) or from
 * a file, and the certificate must be a board's: URI SAN "tiebreak:node/...". */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

struct trust;

/* Exactly one of the two: `pin` is 64 hex digits, `ca_file` a PEM file. 0, or -EINVAL and
 * `message` (owned by the caller, free). */
int trust_new(const char *pin, const char *ca_file, struct trust **ret, char **message);
void trust_free(struct trust *t);
/* Installs the check into an SSL_CTX; `t` must outlive it. */
void trust_install(struct trust *t, void *ssl_ctx);
/* Why the last chain was refused; "" if none was. */
const char *trust_refusal(const struct trust *t);

/* SHA-256 as lower-case hex. */
void digest_hex(const void *data, size_t len, char hex[65]);

/* A fresh P-256 key and a PKCS#10 request for `common_name`, both PEM. */
void request_new(const char *common_name, struct buf *ret_key, struct buf *ret_csr);
/* A PKCS#10 request (PEM) of a key that is there (PEM). -EINVAL: it is no key. */
int request_of_key(const char *key, struct buf *ret_csr);
/* Validity of the first certificate of a PEM text, in milliseconds since 1970. -EINVAL: none. */
int certificate_life(const char *pem, int64_t *ret_from_ms, int64_t *ret_until_ms);
