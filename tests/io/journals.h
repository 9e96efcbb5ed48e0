// What the tests of journals share.
#ifndef LF_TEST_IO_JOURNALS_H
#define LF_TEST_IO_JOURNALS_H

#include "util.h"

#include <sys/stat.h>

static const char uuid[] = "01234567-89ab-4cde-8f01-23456789abcd";

static inline lf_run *open_journal(const char *path)
{
    lf_error err = { 0 };
    lf_run *journal = lf_run_journal(path, uuid, 0, &err);
    if (!journal)
        fail_msg("%s", err.text);
    return journal;
}

static inline lf_run *new_run(void)
{
    lf_error err = { 0 };
    lf_run *run = lf_run_create(&err);
    if (!run)
        fail_msg("%s", err.text);
    return run;
}

static inline size_t size_of(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (size_t)info.st_size : 0;
}

// What a replay tells, a line each.
typedef struct hearing {
    char text[1 << 17];
    size_t used, notes;
    double time; // of the last log line
} hearing;

static inline void hear(void *user, const lf_run_told *told)
{
    hearing *heard = user;
    heard->used += (size_t)snprintf(heard->text + heard->used, sizeof heard->text - heard->used, "%s %s\n",
                                    told->level ? told->level : "note", told->text);
    assert_true(heard->used < sizeof heard->text);
    heard->notes += !told->level;
    if (told->level)
        heard->time = told->time;
}

static inline hearing *hearing_new(void)
{
    static hearing heard;
    heard.used = heard.notes = 0;
    heard.text[0] = 0;
    return &heard;
}

static inline const hearing *replay_from(lf_run *run, const char *path, uint64_t *offset)
{
    lf_error err = { 0 };
    hearing *heard = hearing_new();
    OK(lf_run_replay(run, path, offset, 0, "train", hear, heard, NULL, &err));
    return heard;
}

#endif
