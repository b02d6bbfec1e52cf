/* stream.h: what is said over any connected stream: TCP or vsock. */
#pragma once
#include <stdint.h>

/* Sends back whatever comes until the peer ends; 0 or negative errno. Closes nothing. */
int stream_echo(int stream);

/* Sends `bytes` of a known sequence to a stream_echo and checks that they come back, sending and
 * receiving at once. 0; -EBADMSG if they came back otherwise; or negative errno. */
int stream_exercise(int stream, uint64_t bytes);

/* One way: the receiver counts to the end and answers with the count; the sender waits for it. */
int stream_send(int stream, uint64_t bytes);
int stream_receive(int stream, uint64_t *ret_bytes);

/* Answers every connection made to the listening socket with stream_echo, each in a process of its
 * own; comes back only with a negative errno. */
int stream_serve(int listener);
