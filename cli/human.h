/* human.h: numbers as people read them. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* "2026-11-21 05:38:00", local time; "never" for 0. */
void human_time(int64_t realtime_ms, char text[32]);
/* "3 days", "1 hour 5 minutes", "8 seconds", "250 milliseconds": the two largest units. */
void human_duration(uint64_t ms, char text[64]);
/* "5 minutes ago", "in 3 days", "now"; "never" for 0. */
void human_relative(int64_t realtime_ms, int64_t now_ms, char text[64]);
/* The shortest text that text_to_duration_ms reads back as the same: "8s", "1500ms", "2m". */
void human_duration_exact(uint64_t ms, char text[32]);
/* "12,345". */
void human_count(uint64_t value, char text[32]);
/* Puts '?' for every control character, so that text from elsewhere cannot steer a terminal. */
void human_safe(char *text);
