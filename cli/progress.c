#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/human.h"
#include "lib/clock.h"

enum { BAR_EVERY_MS = 100, LINE_EVERY_MS = 5000, BAR_MAX = 40, WIDTH_DEFAULT = 80 };

void progress_start(struct progress *p, const char *what, uint64_t total, bool quiet)
{
	*p = (struct progress){.what = what, .total = total, .quiet = quiet};
	p->terminal = isatty(STDERR_FILENO);
	p->start_ms = clock_boottime_ms();
	p->last_ms = p->terminal ? 0 : p->start_ms;
}

void progress_line(const char *what, uint64_t done, uint64_t total, uint64_t elapsed_ms, int width,
		   char text[256])
{
	char count[32], all[32], left[64] = "", bar[BAR_MAX + 1] = "", tail[128];
	uint64_t rate = elapsed_ms > 0 ? done * 1000 / elapsed_ms : 0;
	int room, filled;

	human_count(done, count);
	human_count(total, all);
	if (rate > 0 && done < total) {
		uint64_t seconds = (total - done + rate - 1) / rate;

		human_duration(seconds * 1000, left);
	}
	snprintf(tail, sizeof(tail), "%3" PRIu64 " %%  %" PRIu64 "/s%s%.40s%s",
		 total > 0 ? done * 100 / total : 100, rate, left[0] != '\0' ? ", " : "", left,
		 left[0] != '\0' ? " left" : "");
	room = width - 8 - (int)(strlen(what) + strlen(count) + strlen(all) + strlen(tail));
	if (room > BAR_MAX)
		room = BAR_MAX;
	filled = room > 0 && total > 0 ? (int)(done * (uint64_t)room / total) : 0;
	for (int i = 0; i < room; i++)
		bar[i] = i < filled ? '#' : '.';
	if (room >= 8)
		snprintf(text, 256, "%.40s %s/%s [%s] %s", what, count, all, bar, tail);
	else
		snprintf(text, 256, "%.40s %s/%s %s", what, count, all, tail);
}

void progress_show(struct progress *p, uint64_t done)
{
	uint64_t now = clock_boottime_ms();
	struct winsize size = {0};
	char line[256];

	if (p->quiet || now - p->last_ms < (p->terminal ? BAR_EVERY_MS : LINE_EVERY_MS))
		return;
	p->last_ms = now;
	if (!p->terminal || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
		size.ws_col = WIDTH_DEFAULT;
	progress_line(p->what, done, p->total, now - p->start_ms, size.ws_col, line);
	if (p->terminal)
		fprintf(stderr, "\r\033[K%s", line);
	else
		fprintf(stderr, "%s\n", line);
	p->shown = p->terminal;
	fflush(stderr);
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
