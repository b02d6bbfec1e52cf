/* identity_files.h: key, certificate and CA of an enrolled node, as they lie in the state
 * directory. */
#pragma once

struct identity_files {
	char *certificate, *key, *ca; /* PEM texts */
};

#define IDENTITY_NEXT_KEY "agent.key.next" /* a renewal's key, until its certificate is there */

/* Puts a renewal's key in the place of the key. 0 or a negative errno; also 0 if there is none. */
int identity_files_settle(const char *dir);
/* A renewal that was interrupted behind its certificate is ended first. 0; negative errno and a
 * sentence (valid until the next call) naming the file that cannot be read.
 */
int identity_files_read(const char *dir, struct identity_files *ret, const char **ret_why);
/* Wipes the key. */
void identity_files_free(struct identity_files *files);
