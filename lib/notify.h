/* notify.h: sd_notify(3) without libsystemd: one datagram to $NOTIFY_SOCKET.
 * Without that variable nothing happens. Not thread-safe; called from main. */
#pragma once

/* "READY=1", "STOPPING=1", "STATUS=..." */
void notify_send(const char *state);
