/* site_nodes.h: thousands of simulated corosync-qdevices on one epoll loop: the two nodes of each
 * site, with the behaviour of the real program that matters to a witness. Used by the load
 * generator, the demo and the tests.
 *
 * What a node does, as corosync-qdevice 3.0.3 does it: tries the addresses one after the other; a
 * refused connect goes to the next at once, and when all have failed it waits for the rest of the
 * connect timeout (one heartbeat interval); drops the vote at a disconnect, sleeps 2386 ms the
 * first time, 1992 ms the second, then anything below 4.5 s, and connects again; sends an echo
 * every interval and gives the connection up if the one before was not answered; answers
 * VOTE_INFO at once; takes a vote for another ring than its own as no change.
 *
 * It also keeps the book: a site whose two nodes are on different rings and both hold an ACK for
 * their own ring at the same moment is a violation of the only promise a witness makes.
 * One thread. Times are of CLOCK_MONOTONIC. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/qnet.h"

enum { SITE_NODES = 2, SITE_ADDRESSES = 16 };

struct site_nodes;

struct site_nodes_options {
	unsigned sites;
	const char *const *names; /* NULL: prefix and number, "site-0001" */
	const char *prefix; /* "site-" */
	const char *const *addresses; /* host:port, numeric; NULL-terminated */
	bool tls; /* STARTTLS if the server offers it; else stay in the clear */
	const char *ca; /* file: the witness's CA */
	const char *ca_key; /* file: certificates for all sites are made with it; or: */
	const char *cert_dir; /* files NAME.crt and NAME.key of each site (PEM) */
	const char *cert; /* file: one certificate for all sites; NULL: none */
	const char *key;
	uint32_t heartbeat_ms; /* 8000 as corosync-qdevice by default */
	enum qnet_algorithm algorithm;
	unsigned sources; /* sites connect from so many addresses, 127.101.0.1 on; 0: from any */
	unsigned in_flight; /* connects under way at once; 0: no limit */
	bool fair_start; /* nodes attach to addresses in turn instead of the first */
	uint64_t seed;
	FILE *events; /* NULL, or one JSON object per line */
};

/* What a site is, as its two nodes see it at this moment. */
enum site_view {
	SITE_IDLE, /* never attached */
	SITE_WHOLE, /* one ring, both nodes hold the witness's vote */
	SITE_LOOSE, /* one ring, not both have the vote: quorate by their own two votes all the same
		     */
	SITE_ONE, /* two rings, exactly one side holds the vote */
	SITE_NONE, /* two rings, no side holds the vote yet */
	SITE_BOTH, /* two rings, both sides hold the vote: a violation */
	SITE_VIEWS,
};

struct site_nodes_counts {
	unsigned views[SITE_VIEWS];
	unsigned attached; /* nodes with an accepted INIT */
	unsigned connecting;
	unsigned gone; /* nodes whose program has ended for good */
	uint64_t violations; /* times a site came to SITE_BOTH */
	uint64_t overlap_us; /* the longest time that a site was in SITE_BOTH */
	uint64_t lost; /* connections lost, by whatever cause */
	uint64_t echo_late; /* of these: no answer to an echo in time */
	uint64_t refused; /* connects refused */
	uint64_t errors[20]; /* INIT_REPLY and SERVER_ERROR by code */
	char last_error[256]; /* the newest sentence about anything that went wrong */
};

/* Samples in microseconds. */
struct samples {
	uint32_t *us;
	size_t count;
	size_t cap;
};
void samples_add(struct samples *s, uint64_t us);
/* percent 100 is the maximum; 0 if there are none. Sorts. */
uint32_t samples_percentile(struct samples *s, double percent);

/* 0, or -EINVAL and *ret_message (owned by the caller). */
int site_nodes_new(const struct site_nodes_options *options, struct site_nodes **ret,
		   char **ret_message);
void site_nodes_free(struct site_nodes *s);

/* Start the nodes of the sites up to this number. */
void site_nodes_attach(struct site_nodes *s, unsigned sites);
/* The two nodes of a share of the attached, unsplit sites lose each other, all at the same moment.
 * Returns how many sites. */
unsigned site_nodes_split(struct site_nodes *s, unsigned percent);
/* The same, and a node that holds the vote (the lower one) loses the witness too, without a word.
 */
unsigned site_nodes_unplug(struct site_nodes *s, unsigned percent);
/* Everybody sees everybody again. */
void site_nodes_heal(struct site_nodes *s);
/* All connections are reset at once, and come back. */
void site_nodes_reset(struct site_nodes *s);

/* From its next connection on a site (by number from 0) uses what is in cert_dir now. -EINVAL: no
 * cert_dir, no such site, or nothing readable there; it keeps what it has. */
int site_nodes_recertify(struct site_nodes *s, unsigned site);

/* Waits for events, at most `timeout_ms`, and handles them. `extra_fd` (-1: none) ends the wait
 * too; true if it can be read. */
bool site_nodes_poll(struct site_nodes *s, int timeout_ms, int extra_fd);

void site_nodes_counts(const struct site_nodes *s, struct site_nodes_counts *ret);
/* Every attached site is whole, or split with exactly one side. */
bool site_nodes_settled(const struct site_nodes *s);
/* One line per site for a person: its state, who holds the vote, where the nodes are attached. */
void site_nodes_print(const struct site_nodes *s, unsigned first, unsigned count, FILE *out);

/* From connect to INIT_REPLY; echo round trips; from the split's reports to each site's decision
 * (one ACK and one NACK received). Cleared by site_nodes_clear. */
struct samples *site_nodes_attach_times(struct site_nodes *s);
struct samples *site_nodes_echo_times(struct site_nodes *s);
struct samples *site_nodes_split_times(struct site_nodes *s);
void site_nodes_clear(struct site_nodes *s);
uint64_t site_nodes_now_us(void);
