// What a run file says of its own content, and whether it is so.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/run_record.h"

// sha256 of a member of /entry.
static bool member_digest(hid_t file, const char *file_name, const char *name, char hex[65], lf_error *err)
{
    char path[300];
    snprintf(path, sizeof path, "/entry/%s", name);
    lf_hash *hash = lf_hash_create(err);
    bool good = hash && lf_h5_hash(hash, file, file_name, path, err);
    if (good)
        lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return good;
}

typedef struct digesting {
    hid_t file, group; // group: /digest
    const char *path;
    void (*differs)(void *user, const char *name);
    void *user;
} digesting;

static bool digest_set(void *user, const char *name, lf_error *err)
{
    const digesting *d = user;
    char hex[65];
    return member_digest(d->file, d->path, name, hex, err) && lf_h5_set_text(d->group, name, hex, err);
}

bool lf_run_digests_write(lf_run *run, lf_error *err)
{
    digesting d = { .file = run->file, .path = "run file" };
    d.group = lf_h5_group_make(run->file, "digest", err);
    bool good = d.group >= 0 && lf_h5_each_member(run->entry, digest_set, &d, err);
    H5Gclose(d.group);
    return good;
}

static bool digest_compare(void *user, const char *name, lf_error *err)
{
    const digesting *d = user;
    char hex[65];
    lf_error failure = { 0 };
    if (!member_digest(d->file, d->path, name, hex, &failure)) {
        if (failure.code != LF_EFORMAT && failure.code != LF_EDATA) {
            lf_error_set(err, failure.code, "%s", failure.text);
            return false;
        }
        d->differs(d->user, name); // it is damaged
        return true;
    }
    char *said = H5Aexists(d->group, name) > 0 ? lf_h5_attribute_text(d->group, name, d->path, NULL) : NULL;
    if (!said || strcmp(said, hex) != 0)
        d->differs(d->user, name);
    free(said);
    return true;
}

static void missing_compare(const digesting *d, hid_t entry)
{
    size_t count = 0;
    char **names = lf_h5_attribute_names(d->group, &count, NULL);
    for (size_t i = 0; names && i < count; i++)
        if (!lf_h5_exists(entry, names[i]))
            d->differs(d->user, names[i]);
    lf_h5_names_free(names, count);
}

bool lf_run_check(const char *path, void (*differs)(void *user, const char *name), void *user, lf_error *err)
{
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    digesting d = { .path = path, .differs = differs, .user = user, .group = -1 };
    d.file = lf_h5_file_open(path, err);
    hid_t entry = d.file >= 0 ? lf_h5_object_open(d.file, path, "/entry", err) : -1;
    if (entry >= 0)
        d.group = lf_h5_object_open(d.file, path, "/digest", err);
    bool good = d.group >= 0 && lf_h5_each_member(entry, digest_compare, &d, err);
    if (good)
        missing_compare(&d, entry);
    H5Oclose(d.group);
    H5Oclose(entry);
    H5Fclose(d.file);
    lf_h5_leave(&scope);
    return good;
}
