#include "util.h"

#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[512];

int folder_make(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/lavaflow-io-XXXXXX", parent ? parent : "/tmp");
    return mkdtemp(base) ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

int folder_remove(void **state)
{
    (void)state;
    return nftw(base, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *folder(void)
{
    return base;
}

const char *in_folder(const char *name)
{
    static char paths[16][1024];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", base, name);
    return path;
}

int entries_with(const char *path, const char *text)
{
    DIR *entries = opendir(path);
    assert_non_null(entries);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(entries));)
        count += strstr(entry->d_name, text) != NULL;
    closedir(entries);
    return count;
}

char *file_bytes(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*size + 1);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

void file_put(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

hid_t h5_make(const char *path)
{
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

void h5_put(hid_t file, const char *path, hid_t type, hid_t memory_type, int rank, const hsize_t *dims,
            const layout *shape, const void *values)
{
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    if (shape && shape->compact)
        H5Pset_layout(list, H5D_COMPACT);
    if (shape && shape->chunk[0])
        assert_true(H5Pset_chunk(list, rank, shape->chunk) >= 0);
    if (shape && shape->shuffle)
        H5Pset_shuffle(list);
    if (shape && shape->deflate)
        assert_true(H5Pset_deflate(list, 1) >= 0);
    if (shape && shape->szip)
        assert_true(H5Pset_szip(list, H5_SZIP_NN_OPTION_MASK, 8) >= 0);
    if (shape && shape->checksum)
        H5Pset_fletcher32(list);
    hid_t set = H5Dcreate2(file, path, type, space, links, list, H5P_DEFAULT);
    assert_true(set >= 0);
    if (values)
        assert_true(H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Pclose(links);
    H5Pclose(list);
    H5Sclose(space);
}

void h5_attribute(hid_t file, const char *path, const char *name, hid_t type, hid_t memory_type, int rank,
                  const hsize_t *dims, const void *values)
{
    hid_t space = rank ? H5Screate_simple(rank, dims, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate_by_name(file, path, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0);
    assert_true(H5Awrite(attribute, memory_type, values) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

void h5_attribute_texts(hid_t file, const char *path, const char *name, size_t count, const char *const *texts)
{
    const hsize_t length = count;
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    h5_attribute(file, path, name, type, type, 1, &length, texts);
    H5Tclose(type);
}

hid_t h5_half(void)
{
    hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(half, 15, 10, 5, 0, 10);
    H5Tset_size(half, 2);
    H5Tset_ebias(half, 15);
    return half;
}

void small_dataset(const char *path, hsize_t rows, hsize_t columns)
{
    const hsize_t dims[] = { rows, columns };
    uint8_t *x = malloc((size_t)(rows * columns)), *y = malloc((size_t)rows);
    for (size_t i = 0; i < rows; i++) {
        y[i] = (uint8_t)(i % 10);
        for (size_t j = 0; j < columns; j++)
            x[i * columns + j] = (uint8_t)(7 * i + 3 * j);
    }
    hid_t file = h5_make(path);
    h5_put(file, "/train/x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 2, dims, NULL, x);
    h5_put(file, "/train/y", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, dims, NULL, y);
    H5Fclose(file);
    free(x);
    free(y);
}

lf_dataset *open_file(const char *path)
{
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(&(lf_dataset_spec){ .file = path }, &err);
    if (!data)
        fail_msg("%s", err.text);
    return data;
}

void refused(const lf_dataset_spec *spec, lf_code code, const char *text)
{
    lf_error err = { 0 };
    lf_dataset *data = lf_dataset_open(spec, &err);
    if (data)
        fail_msg("%s opens, but should say: %s", spec->file, text);
    assert_says(err, code, text);
}

void says(const lf_error *err, lf_code code, const char *wanted, const char *file, int line)
{
    if (!strstr(err->text, wanted) || err->code != code) {
        print_error("got  %s: %s\nwant %s: %s\n", lf_code_name(err->code), err->text, lf_code_name(code), wanted);
        _fail(file, line);
    }
}

static void put(listing *list, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(list->text + list->used, sizeof list->text - list->used, format, args);
    va_end(args);
    assert_true(wrote >= 0 && list->used + (size_t)wrote < sizeof list->text);
    list->used += (size_t)wrote;
}

bool list_node(void *user, const lf_h5_node *node)
{
    static const char *const kinds[] = { "group", "text", "integer", "float", "other" };
    listing *list = user;
    put(list, "%s %s", node->path, kinds[node->kind]);
    for (size_t i = 0; i < node->rank; i++)
        put(list, "%c%llu", i ? 'x' : ' ', (unsigned long long)node->shape[i]);
    for (size_t i = 0; i < node->count; i++) {
        if (node->texts)
            put(list, " '%s'", node->texts[i]);
        else if (node->integers)
            put(list, " %lld", (long long)node->integers[i]);
        else if (node->floats)
            put(list, " %g", node->floats[i]);
    }
    put(list, "\n");
    return ++list->nodes != list->stop_after;
}

const listing *walk(const char *path, const char *root, size_t limit)
{
    static listing list;
    lf_error err = { 0 };
    list.used = list.nodes = 0;
    OK(lf_h5_walk(path, root, limit, list_node, &list, &err));
    return &list;
}

void assert_lists(const char *path, const char *line)
{
    const listing *list = walk(path, "/", 100);
    char whole[1024];
    snprintf(whole, sizeof whole, "%s\n", line);
    const char *at = strstr(list->text, whole);
    if (!at || (at != list->text && at[-1] != '\n'))
        fail_msg("no line \"%s\" in\n%s", line, list->text);
}

static lf_file_tensor tensor(const char *name, uint32_t rows, uint32_t cols, unsigned seed)
{
    size_t count = (size_t)(rows ? rows : 1) * cols;
    lf_file_tensor made = { strdup(name), rows, cols, malloc(count * sizeof(float)) };
    for (size_t i = 0; i < count; i++)
        made.values[i] = (float)seed + (float)i / 1024;
    return made;
}

lf_model_file *sample_model(unsigned seed, bool with_state)
{
    lf_model_file *model = calloc(1, sizeof *model);
    char definition[64];
    snprintf(definition, sizeof definition, "{\"layers\":[\"linear\"],\"seed\":%u}", seed);
    model->definition = strdup(definition);
    model->tensor_count = 4;
    model->tensors = calloc(model->tensor_count, sizeof *model->tensors);
    model->tensors[0] = tensor("linear_1/kernel", 7, 5, seed);
    model->tensors[1] = tensor("linear_1/bias", 0, 5, seed + 1);
    model->tensors[2] = tensor("linear_2/kernel", 5, 1, seed + 2);
    model->tensors[3] = tensor("linear_2/bias", 0, 1, seed + 3);
    if (!with_state)
        return model;
    lf_train_state *state = model->state = calloc(1, sizeof *state);
    snprintf(state->optimizer, sizeof state->optimizer, "adam");
    state->optimizer_step = 1000 + seed;
    state->epoch = 3;
    state->step = 1000 + seed;
    state->position = 128;
    state->seed = UINT64_MAX - 1;
    state->schedule = strdup("cosine over 100 steps");
    state->best = .125;
    state->waited = 3;
    state->reductions = 2;
    state->options = strdup("{\"batch\":64}");
    state->monitor_best = NAN; // what the checkpoints of earlier versions have
    state->moment_count = 2;
    state->moments = calloc(2, sizeof *state->moments);
    state->moments[0] = tensor("linear_1/kernel/m", 7, 5, seed + 4);
    state->moments[1] = tensor("linear_1/kernel/v", 7, 5, seed + 5);
    return model;
}

static const lf_file_tensor *find(const lf_file_tensor *tensors, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return &tensors[i];
    return NULL;
}

static bool tensors_equal(const lf_file_tensor *a, size_t a_count, const lf_file_tensor *b, size_t b_count)
{
    if (a_count != b_count)
        return false;
    for (size_t i = 0; i < a_count; i++) {
        const lf_file_tensor *other = find(b, b_count, a[i].name);
        size_t count = (size_t)(a[i].rows ? a[i].rows : 1) * a[i].cols;
        if (!other || other->rows != a[i].rows || other->cols != a[i].cols ||
            memcmp(other->values, a[i].values, count * sizeof(float)) != 0)
            return false;
    }
    return true;
}

static bool texts_equal(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

bool models_equal(const lf_model_file *a, const lf_model_file *b)
{
    const lf_train_state *s = a->state, *t = b->state;
    if (strcmp(a->definition, b->definition) != 0 ||
        !tensors_equal(a->tensors, a->tensor_count, b->tensors, b->tensor_count) || !s != !t)
        return false;
    return !s || (strcmp(s->optimizer, t->optimizer) == 0 && s->optimizer_step == t->optimizer_step &&
                  s->epoch == t->epoch && s->step == t->step && s->position == t->position && s->seed == t->seed &&
                  (s->best == t->best || (isnan(s->best) && isnan(t->best))) && texts_equal(s->schedule, t->schedule) &&
                  texts_equal(s->options, t->options) &&
                  (s->monitor_best == t->monitor_best || (isnan(s->monitor_best) && isnan(t->monitor_best))) &&
                  s->monitor_epoch == t->monitor_epoch && s->row_count == t->row_count &&
                  (s->row_count == 0 || memcmp(s->rows, t->rows, s->row_count * sizeof *s->rows) == 0) &&
                  tensors_equal(s->moments, s->moment_count, t->moments, t->moment_count));
}
