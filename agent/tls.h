/* tls.h: TLS 1.2 towards a board, on a socket that does not block. The only file of this room that
 * names mbed TLS (chosen for its size: OpenSSL alone takes more memory than the whole agent may).
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

struct tls_identity; /* certificate, key, CA and the random generator; outlives its connections */
struct tls_link;

/* PEM texts. 0; -EINVAL and *ret_why (static) naming which of them is not usable. `certificate`
 * NULL (then `key` is not looked at): an enrolment, without one. `ca` NULL: boards are not
 * verified; the caller compares tls_link_has_root. */
int tls_identity_new(const char *certificate, const char *key, const char *ca,
		     struct tls_identity **ret, const char **ret_why);
void tls_identity_free(struct tls_identity *id); /* NULL is fine */

/* `fd` stays the caller's. `alpn` is a string constant. */
struct tls_link *tls_link_new(struct tls_identity *id, int fd, const char *alpn);
void tls_link_free(struct tls_link *t); /* NULL is fine */
/* 0: done; -EAGAIN: when the socket is ready (tls_link_wants_write says for what); other: failed.
 */
int tls_link_handshake(struct tls_link *t);
int tls_link_wants_write(const struct tls_link *t);
/* > 0: bytes read; 0: the board has closed; -EAGAIN; other: failed. */
int tls_link_read(struct tls_link *t, void *data, size_t len);
/* >= 0: bytes taken (maybe fewer); -EAGAIN; other: failed. */
int tls_link_write(struct tls_link *t, const void *data, size_t len);
/* What failed, for people; valid until the next call. */
const char *tls_link_error(const struct tls_link *t);
/* Did the board show a chain that leads to the certificate with this SHA-256 (64 hex digits)? */
int tls_link_has_root(struct tls_link *t, const char *sha256);

/* A new P-256 key and a PKCS#10 request for it, both PEM, owned by the caller (wipe the key). */
int tls_key_new(struct tls_identity *id, const char *common_name, char **ret_key,
		char **ret_request);
/* When the first certificate of a PEM text was made and ends, in ms since 1970; -EINVAL. */
int tls_pem_life(const char *pem, int64_t *ret_issued_ms, int64_t *ret_not_after_ms);
