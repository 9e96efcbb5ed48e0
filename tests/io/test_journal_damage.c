// Journals that a kill, a crash or a full disk has torn, and files that are none.
#include "journals.h"

#include <signal.h>
#include <sys/resource.h>

static void what_is_no_journal_is_refused_and_kept(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("other.journal");
    lf_run *run = new_run();
    static const char *const contents[] = { "return 1 -- a Lua file, not a journal at all",
                                            "lavaflow journal 2\nxxxxxxxx", "short" };
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        uint64_t offset = 0;
        file_put(path, contents[i], strlen(contents[i]));
        assert_false(lf_run_replay(run, path, &offset, 0, "", NULL, NULL, NULL, &err));
        assert_says(err, LF_EFORMAT, "other.journal: ");
        assert_null(lf_run_journal(path, uuid, 0, &err));
        assert_says(err, LF_EFORMAT, "other.journal: ");
        assert_int_equal(size_of(path), strlen(contents[i]));
    }
    uint64_t offset = 0;
    assert_false(lf_run_replay(run, in_folder("absent.journal"), &offset, 0, "", NULL, NULL, NULL, &err));
    assert_says(err, LF_EIO, "absent.journal: cannot be opened: ");
    lf_run_destroy(run);
}

enum { RECORDS = 4 };

// Record i, which is told of if it is even. Returns the ends of all, the head's first.
static void small_journal(const char *path, size_t ends[RECORDS + 1])
{
    lf_error err = { 0 };
    lf_run *journal = open_journal(path);
    ends[0] = size_of(path);
    for (int64_t i = 0; i < RECORDS; i++) {
        const double value = (double)i;
        char text[8];
        snprintf(text, sizeof text, "%d", (int)i);
        if (i % 2)
            OK(lf_run_series(journal, "train", "loss", 1, &i, &value, &value, &err));
        else
            OK(lf_run_note(journal, text, &err));
        ends[i + 1] = size_of(path);
    }
    lf_run_destroy(journal);
}

// The run has the first `count` records, and heard of those that are told.
static void assert_has(const lf_run *run, const hearing *heard, size_t count, size_t cut)
{
    const int64_t *steps;
    const double *values;
    size_t rows = lf_run_series_get(run, "train", "loss", &steps, &values);
    if (rows != count / 2 || heard->notes < (count + 1) / 2 ||
        strncmp(heard->text, "note 0\nnote 2\n", 7 * ((count + 1) / 2)) != 0)
        fail_msg("at byte %zu: %zu of %zu rows, %zu of %zu notes", cut, rows, count / 2, heard->notes, (count + 1) / 2);
}

static void a_torn_record_is_left_out_and_the_journal_continued_without_it(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("torn.journal");
    size_t ends[RECORDS + 1], size, whole = 0;
    small_journal(path, ends);
    char *bytes = file_bytes(path, &size);
    for (size_t cut = 0; cut <= size; cut++) {
        while (whole < RECORDS && ends[whole + 1] <= cut)
            whole++;
        file_put(path, bytes, cut);
        lf_run *run = new_run();
        uint64_t offset = 0;
        const hearing *heard = replay_from(run, path, &offset);
        assert_has(run, heard, whole, cut);
        assert_int_equal(heard->notes, (whole + 1) / 2);
        lf_run *journal = open_journal(path);
        OK(lf_run_note(journal, "after", &err));
        lf_run_destroy(journal);
        assert_string_equal(replay_from(run, path, &offset)->text, "note after\n"); // from where it stopped
        lf_run *again = new_run();
        offset = 0;
        heard = replay_from(again, path, &offset);
        assert_has(again, heard, whole, cut);
        assert_int_equal(heard->notes, (whole + 1) / 2 + 1);
        assert_int_equal(offset, size_of(path));
        lf_run_destroy(again);
        lf_run_destroy(run);
    }
    free(bytes);
}

static void a_changed_byte_is_an_error_in_the_middle_and_a_torn_end_in_the_last_record(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("changed.journal");
    size_t ends[RECORDS + 1], size, record = 0;
    small_journal(path, ends);
    char *bytes = file_bytes(path, &size);
    static const char changes[] = { 1, (char)0xff };
    for (size_t at = ends[0]; at < size; at++) {
        while (ends[record + 1] <= at)
            record++;
        for (size_t i = 0; i < sizeof changes; i++) {
            bytes[at] ^= changes[i];
            file_put(path, bytes, size);
            bytes[at] ^= changes[i];
            lf_run *run = new_run();
            uint64_t offset = 0;
            hearing *heard = hearing_new();
            bool good = lf_run_replay(run, path, &offset, 0, "", hear, heard, NULL, &err);
            assert_has(run, heard, record, at);
            assert_int_equal(heard->notes, (record + 1) / 2);
            assert_int_equal(offset, ends[record]);
            if (good != (record == RECORDS - 1))
                fail_msg("byte %zu of record %zu: %s", at, record, good ? "no error" : err.text);
            if (!good) {
                char wanted[96];
                snprintf(wanted, sizeof wanted, "changed.journal: is damaged: the checksum of the record at byte %zu ",
                         ends[record]);
                assert_says(err, LF_EDATA, wanted);
                assert_null(lf_run_journal(path, uuid, 0, &err)); // what is behind it would be lost
                assert_says(err, LF_EDATA, wanted);
                assert_int_equal(size_of(path), size);
            }
            lf_run_destroy(run);
        }
    }
    free(bytes);
}

// What a crash of the system may leave: a file that is longer than what was written.
static void zeros_at_the_end_are_a_torn_end(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("zeros.journal");
    size_t ends[RECORDS + 1], size;
    small_journal(path, ends);
    char *bytes = file_bytes(path, &size);
    for (size_t from = ends[RECORDS - 1] + 1; from <= size; from++) {
        char *copy = calloc(1, size + 4096);
        memcpy(copy, bytes, from);
        file_put(path, copy, size + 4096);
        free(copy);
        lf_run *run = new_run();
        uint64_t offset = 0;
        size_t whole = from == size ? RECORDS : RECORDS - 1;
        // The last record may end in zeros of its own.
        const hearing *heard = replay_from(run, path, &offset);
        if (offset == ends[RECORDS])
            whole = RECORDS;
        assert_has(run, heard, whole, from);
        lf_run *journal = open_journal(path);
        OK(lf_run_note(journal, "after", &err));
        lf_run_destroy(journal);
        assert_string_equal(replay_from(run, path, &offset)->text, "note after\n");
        lf_run_destroy(run);
    }
    free(bytes);
}

static void a_journal_on_a_full_disk_stays_whole_and_goes_on_when_there_is_room(void **state)
{
    (void)state;
    lf_error err = { 0 };
    const char *path = in_folder("full.journal");
    lf_run *journal = open_journal(path);
    OK(lf_run_note(journal, "before", &err));
    size_t size = size_of(path);
    struct rlimit limit, old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (size_t room = 0; room < 40; room += 13) {
        limit = (struct rlimit){ size + room, old.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        bool noted = lf_run_note(journal, "a note that is longer than there is room for it", &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_false(noted);
        assert_says(err, LF_EIO, "full.journal: cannot be written: ");
        assert_int_equal(size_of(path), size);
    }
    signal(SIGXFSZ, handler);
    OK(lf_run_note(journal, "after", &err));
    lf_run *run = new_run();
    uint64_t offset = 0;
    assert_string_equal(replay_from(run, path, &offset)->text, "note before\nnote after\n");
    lf_run_destroy(journal);
    lf_run_destroy(run);
}

int main(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_journal_is_refused_and_kept),
        cmocka_unit_test(a_torn_record_is_left_out_and_the_journal_continued_without_it),
        cmocka_unit_test(a_changed_byte_is_an_error_in_the_middle_and_a_torn_end_in_the_last_record),
        cmocka_unit_test(zeros_at_the_end_are_a_torn_end),
        cmocka_unit_test(a_journal_on_a_full_disk_stays_whole_and_goes_on_when_there_is_room),
    };
    return cmocka_run_group_tests_name("io: damaged journals", tests, folder_make, folder_remove);
}
