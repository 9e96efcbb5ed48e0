#include "io/run_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool out_of_memory(lf_error *err)
{
    lf_error_set(err, LF_ENOMEM, "run file: out of memory");
    return false;
}

// Makes room for `count` elements of `size` bytes in *array, at least doubling. `room` is what it has.
static bool grow(void *array, size_t size, size_t room, size_t count)
{
    void *old;
    memcpy(&old, array, sizeof old);
    size_t wanted = count > 2 * room ? count : 2 * room;
    void *grown = realloc(old, wanted * size);
    if (grown)
        memcpy(array, &grown, sizeof grown);
    return grown;
}

static lf_run_series_data *series_find(lf_run *run, const char *step, const char *name)
{
    for (size_t i = 0; i < run->series_count; i++)
        if (strcmp(run->series[i].step, step) == 0 && strcmp(run->series[i].name, name) == 0)
            return &run->series[i];
    if (!grow(&run->series, sizeof *run->series, 0, run->series_count + 1))
        return NULL;
    lf_run_series_data fresh = { .step = strdup(step), .name = strdup(name) };
    if (!fresh.step || !fresh.name) {
        free(fresh.step);
        free(fresh.name);
        return NULL;
    }
    run->series[run->series_count] = fresh;
    return &run->series[run->series_count++];
}

static bool series_append(lf_run *run, const char *step, const char *name, size_t count, const int64_t *steps,
                          const double *times, const double *values)
{
    lf_run_series_data *series = series_find(run, step, name);
    if (!series)
        return false;
    size_t need = series->count + count;
    if (need > series->room) {
        if (!grow(&series->steps, sizeof *steps, series->room, need) ||
            !grow(&series->times, sizeof *times, series->room, need) ||
            !grow(&series->values, sizeof *values, series->room, need))
            return false;
        series->room = need > 2 * series->room ? need : 2 * series->room;
    }
    memcpy(series->steps + series->count, steps, count * sizeof *steps);
    memcpy(series->times + series->count, times, count * sizeof *times);
    memcpy(series->values + series->count, values, count * sizeof *values);
    series->count = need;
    return true;
}

bool lf_run_series_add(lf_run *run, const char *step, const char *name, size_t count, const int64_t *steps,
                       const double *times, const double *values, lf_error *err)
{
    size_t before = run->series_count;
    bool good = series_append(run, step, name, count, steps, times, values);
    run->reshaped |= run->series_count > before;
    return good || out_of_memory(err);
}

bool lf_run_series(lf_run *run, const char *step, const char *name, size_t count, const int64_t *steps,
                   const double *times, const double *values, lf_error *err)
{
    if (count == 0)
        return true;
    if (!*step || !*name || strchr(step, '/') || strchr(name, '/')) {
        lf_error_set(err, LF_EARG, "run file: series \"%s\" of \"%s\": expects names without '/'", name, step);
        return false;
    }
    if (run->journal >= 0)
        return lf_journal_series(run, step, name, count, steps, times, values, err);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = lf_run_series_add(run, step, name, count, steps, times, values, err);
    lf_h5_leave(&scope);
    return good;
}

static lf_run_digests *digests_find(lf_run *run, const char *step)
{
    for (size_t i = 0; i < run->digest_count; i++)
        if (strcmp(run->digests[i].step, step) == 0)
            return &run->digests[i];
    char *copy = strdup(step);
    if (!copy || !grow(&run->digests, sizeof *run->digests, 0, run->digest_count + 1)) {
        free(copy);
        return NULL;
    }
    run->digests[run->digest_count] = (lf_run_digests){ .step = copy };
    return &run->digests[run->digest_count++];
}

bool lf_run_digest_add(lf_run *run, const char *step, int64_t at, const char hex[64], lf_error *err)
{
    size_t before = run->digest_count;
    lf_run_digests *digests = digests_find(run, step);
    bool good = digests;
    if (good && digests->count == digests->room) {
        good = grow(&digests->at, sizeof at, digests->room, digests->count + 1) &&
               grow(&digests->hex, sizeof *digests->hex, digests->room, digests->count + 1);
        if (good)
            digests->room = digests->room ? 2 * digests->room : 1;
    }
    if (good) {
        digests->at[digests->count] = at;
        memcpy(digests->hex[digests->count++], hex, 64);
    }
    run->reshaped |= run->digest_count > before;
    return good || out_of_memory(err);
}

bool lf_run_digest(lf_run *run, const char *step, int64_t at, const char hex[65], lf_error *err)
{
    if (!*step || strchr(step, '/')) {
        lf_error_set(err, LF_EARG, "run file: digest of \"%s\": expects a name without '/'", step);
        return false;
    }
    if (strlen(hex) != 64) {
        lf_error_set(err, LF_EARG, "run file: digest of \"%s\" has %zu digits; expects 64", step, strlen(hex));
        return false;
    }
    if (run->journal >= 0)
        return lf_journal_digest(run, step, at, hex, err);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = lf_run_digest_add(run, step, at, hex, err);
    lf_h5_leave(&scope);
    return good;
}

bool lf_run_rewind(lf_run *run, const char *step, const char *name, int64_t at, lf_error *err)
{
    if (run->journal >= 0)
        return lf_journal_rewind(run, step, name, at, err);
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    for (size_t i = 0; name && i < run->series_count; i++) {
        lf_run_series_data *series = &run->series[i];
        if (strcmp(series->step, step) != 0 || strcmp(series->name, name) != 0)
            continue;
        for (; series->count && series->steps[series->count - 1] > at; run->reshaped = true)
            series->count--;
    }
    for (size_t i = 0; !name && i < run->digest_count; i++) {
        lf_run_digests *digests = &run->digests[i];
        if (strcmp(digests->step, step) != 0)
            continue;
        for (; digests->count && digests->at[digests->count - 1] > at; run->reshaped = true)
            digests->count--;
    }
    lf_h5_leave(&scope);
    return true;
}

size_t lf_run_series_get(const lf_run *run, const char *step, const char *name, const int64_t **steps,
                         const double **values)
{
    for (size_t i = 0; i < run->series_count; i++) {
        const lf_run_series_data *series = &run->series[i];
        if (strcmp(series->step, step) != 0 || strcmp(series->name, name) != 0)
            continue;
        *steps = series->steps;
        *values = series->values;
        return series->count;
    }
    return 0;
}

static void line_finish(lf_run_log_line *line)
{
    free(line->step);
    free(line->level);
    free(line->text);
}

bool lf_run_log_add(lf_run *run, double time, const char *step, const char *level, const char *text, lf_error *err)
{
    lf_run_log_line line = { .time = time, .step = strdup(step), .level = strdup(level), .text = strdup(text) };
    bool good = line.step && line.level && line.text;
    if (good && run->line_count == run->line_room) {
        good = grow(&run->lines, sizeof line, run->line_room, run->line_count + 1);
        if (good)
            run->line_room = run->line_room ? 2 * run->line_room : 1;
    }
    if (good)
        run->lines[run->line_count++] = line;
    if (good)
        return true;
    line_finish(&line);
    return out_of_memory(err);
}

bool lf_run_log_at(lf_run *run, double time, const char *step, const char *level, const char *text, lf_error *err)
{
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    bool good = lf_run_log_add(run, time, step, level, text, err);
    lf_h5_leave(&scope);
    return good;
}

bool lf_run_log(lf_run *run, const char *step, const char *level, const char *text, lf_error *err)
{
    if (run->journal >= 0)
        return lf_journal_log(run, level, text, err);
    return lf_run_log_at(run, lf_run_time(run), step, level, text, err);
}

// H5MD's step, time and value; NXdata's signal and axes.
static bool series_write(lf_run *run, const lf_run_series_data *series, lf_error *err)
{
    char path[600];
    snprintf(path, sizeof path, "metrics/%s/%s", series->step, series->name);
    hid_t group = lf_run_group(run, path, "NXdata", err);
    bool good =
        group >= 0 && lf_h5_set_text(group, "signal", "value", err) && lf_h5_set_text(group, "axes", "step", err) &&
        lf_h5_write_series(group, "step", H5T_STD_I64LE, H5T_NATIVE_INT64, series->count, series->steps, err) &&
        lf_h5_write_series(group, "time", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, series->count, series->times, err) &&
        lf_h5_write_series(group, "value", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, series->count, series->values, err);
    hid_t set = good ? H5Dopen2(group, "time", H5P_DEFAULT) : -1;
    good = set >= 0 && lf_h5_set_text(set, "units", "s", err);
    H5Dclose(set);
    set = good ? H5Dopen2(group, "value", H5P_DEFAULT) : -1;
    good = set >= 0 && lf_h5_set_text(set, "long_name", series->name, err);
    H5Dclose(set);
    H5Gclose(group);
    return good;
}

// The chain of @default along which a NeXus viewer finds its first plot: `child` of the group at `path`.
static bool set_default(lf_run *run, const char *path, const char *child, lf_error *err)
{
    hid_t group = lf_run_group(run, path, NULL, err);
    bool good = group >= 0 && lf_h5_set_text(group, "default", child, err);
    H5Gclose(group);
    return good;
}

static bool defaults_write(lf_run *run, lf_error *err)
{
    bool good =
        lf_h5_set_text(run->entry, "default", "metrics", err) && set_default(run, "metrics", run->series[0].step, err);
    for (size_t i = 0; good && i < run->series_count; i++) {
        const lf_run_series_data *first = &run->series[i];
        bool seen = false;
        for (size_t j = 0; j < i; j++)
            seen |= strcmp(run->series[j].step, first->step) == 0;
        if (seen)
            continue;
        const char *shown = first->name;
        for (size_t j = i; j < run->series_count; j++)
            if (strcmp(run->series[j].step, first->step) == 0 && strcmp(run->series[j].name, "loss") == 0)
                shown = "loss";
        char path[600];
        snprintf(path, sizeof path, "metrics/%s", first->step);
        good = set_default(run, path, shown, err);
    }
    return good;
}

static bool digests_write(lf_run *run, const lf_run_digests *digests, lf_error *err)
{
    char path[600];
    snprintf(path, sizeof path, "digests/%s", digests->step);
    hid_t group = lf_run_group(run, path, NULL, err), type = H5Tcopy(H5T_C_S1);
    bool good = group >= 0 && H5Tset_size(type, 64) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 &&
                lf_h5_write_series(group, "step", H5T_STD_I64LE, H5T_NATIVE_INT64, digests->count, digests->at, err) &&
                lf_h5_write_series(group, "sha256", type, type, digests->count, digests->hex, err);
    H5Tclose(type);
    H5Gclose(group);
    return good;
}

// Parallel arrays: h5py and h5dump show them as they are, and a reader may take only one.
static bool log_write(lf_run *run, lf_error *err)
{
    size_t count = run->line_count;
    double *times = malloc(count * sizeof *times);
    const char **levels = malloc(count * sizeof *levels), **texts = malloc(count * sizeof *texts);
    const char **steps = malloc(count * sizeof *steps);
    hid_t group = -1, type = lf_h5_text_type(), set = -1;
    bool good = times && levels && texts && steps;
    if (!good)
        out_of_memory(err);
    for (size_t i = 0; good && i < count; i++) {
        times[i] = run->lines[i].time;
        levels[i] = run->lines[i].level;
        texts[i] = run->lines[i].text;
        steps[i] = run->lines[i].step;
    }
    group = good ? lf_run_group(run, "log", "NXnote", err) : -1;
    good = group >= 0 && lf_h5_write_series(group, "time", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, count, times, err) &&
           lf_h5_write_series(group, "level", type, type, count, levels, err) &&
           lf_h5_write_series(group, "step", type, type, count, steps, err) &&
           lf_h5_write_series(group, "text", type, type, count, texts, err);
    set = good ? H5Dopen2(group, "time", H5P_DEFAULT) : -1;
    good = set >= 0 && lf_h5_set_text(set, "units", "s", err);
    H5Dclose(set);
    H5Gclose(group);
    H5Tclose(type);
    free(times);
    free(levels);
    free(texts);
    free(steps);
    return good;
}

bool lf_run_records_write(lf_run *run, lf_error *err)
{
    bool good = true;
    for (size_t i = 0; good && i < run->series_count; i++)
        good = series_write(run, &run->series[i], err);
    if (good && run->series_count > 0)
        good = defaults_write(run, err);
    for (size_t i = 0; good && i < run->digest_count; i++)
        good = digests_write(run, &run->digests[i], err);
    return good && (run->line_count == 0 || log_write(run, err));
}

void lf_run_records_finish(lf_run *run)
{
    for (size_t i = 0; i < run->series_count; i++) {
        free(run->series[i].step);
        free(run->series[i].name);
        free(run->series[i].steps);
        free(run->series[i].times);
        free(run->series[i].values);
    }
    for (size_t i = 0; i < run->digest_count; i++) {
        free(run->digests[i].step);
        free(run->digests[i].at);
        free(run->digests[i].hex);
    }
    for (size_t i = 0; i < run->line_count; i++)
        line_finish(&run->lines[i]);
    free(run->series);
    free(run->digests);
    free(run->lines);
}
