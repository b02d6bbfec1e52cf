/* pki.h: making keys, certificates and requests. X.509 lives here, TLS in tls.c.
 *
 * ECDSA P-256 with SHA-256 throughout; serials are 16 random bytes. All results are PEM text
 * owned by the caller (free; wipe keys with mem_wipe first) unless said otherwise.
 * Codes: 0; -EINVAL with *ret_message (static or the thread's own) on bad input. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

struct pki_signed {
	char *pem;
	char serial[64]; /* lower-case hex */
	int64_t not_after_ms;
};
void pki_signed_free(struct pki_signed *s);

int pki_key_new(char **ret_key);
/* Self-signed CA, `days` valid, valid from an hour before `now_ms`. */
int pki_ca_new(const char *common_name, const char *key, int64_t now_ms, unsigned days,
	       struct pki_signed *ret);
/* PKCS#10 request for a key. */
int pki_request_new(const char *common_name, const char *key, char **ret_request);

enum pki_use { PKI_NODE, PKI_CLIENT, PKI_QNET_SERVER, PKI_QNET_CLIENT };
struct pki_sign {
	const char *ca_cert;
	const char *ca_key;
	const void *request; /* PEM or DER PKCS#10; its signature is checked, its names ignored */
	size_t request_len;
	const char *common_name;
	const char *uri; /* URI SAN, NULL none */
	const char *const *dns; /* DNS SANs, NULL-terminated, NULL none */
	enum pki_use
		use; /* chooses key usage and extended key usage; RSA >= 2048 allowed for sites */
	int64_t now_ms;
	int64_t not_after_ms;
};
int pki_sign(const struct pki_sign *how, struct pki_signed *ret, const char **ret_message);

/* The server certificate that corosync-qdevice asks for by name, with a new key. */
int pki_qnet_server_new(const char *ca_cert, const char *ca_key, int64_t now_ms,
			int64_t not_after_ms, char **ret_cert, char **ret_key);

/* PEM to DER and a PKCS#12 with empty password that NSS (corosync-qdevice-net-certutil -m) reads:
 * certificate and key with the friendly name `nickname`, and the CA certificate. */
int pki_der(const char *pem, struct buf *ret_der);
int pki_pkcs12(const char *cert, const char *key, const char *ca_cert, const char *nickname,
	       struct buf *ret, const char **ret_message);
/* `new_ca` (PEM, of a CA of the same name) with its name and key signed by the old one, so that who
 * believes only the old one believes what the new one signs. */
int pki_bridge(const char *old_ca, const char *old_key, const char *new_ca, int64_t now_ms,
	       char **ret_pem);
/* SHA-256 (hex) of the first certificate in the PEM text. */
int pki_sha256(const char *pem, char hex[65]);
/* CN of the first certificate; the caller frees it. */
int pki_common_name(const char *pem, char **ret);
/* Serial number of the first certificate, as pki_signed has it. */
int pki_serial(const char *pem, char serial[64]);
/* Begin and end of validity of the first certificate. */
int pki_not_before_ms(const char *pem, int64_t *ret);
int pki_not_after_ms(const char *pem, int64_t *ret);
