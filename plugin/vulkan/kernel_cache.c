// The driver's pipeline cache on disk: $XDG_CACHE_HOME/lavaflow/NAME, or ~/.cache/lavaflow/NAME. A file is the sha256
// of what follows, as 64 digits, then the driver's bytes. It only saves time, so every failure is silent: without a
// folder that can be written there is no cache.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/hash.h"
#include "vulkan/internal.h"

enum { DIGEST = 64, PATH = 4096, CACHE_MAX = 256 << 20 };

// Whether `path` now names the file in a folder that exists, or that could be made if `make` is set.
static bool find_path(char path[PATH], const char *name, bool make)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[PATH - 256];
    int length;
    if (cache && cache[0] == '/')
        length = snprintf(folder, sizeof folder, "%s", cache);
    else if (home && home[0] == '/')
        length = snprintf(folder, sizeof folder, "%s/.cache", home);
    else
        return false;
    if (length < 0 || (size_t)length >= sizeof folder - sizeof "/lavaflow" || strlen(name) > 200)
        return false;
    if (make)
        mkdir(folder, 0700);
    strcat(folder, "/lavaflow");
    if (make && mkdir(folder, 0700) && errno != EEXIST)
        return false;
    snprintf(path, PATH, "%s/%s", folder, name);
    return true;
}

static bool digest(const void *bytes, size_t size, char hex[DIGEST + 1])
{
    lf_hash *hash = lf_hash_create(NULL);
    if (!hash)
        return false;
    lf_hash_update(hash, bytes, size);
    lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return true;
}

void *vk_kernel_cache_load(const char *name, size_t *size)
{
    char path[PATH], found[DIGEST], expected[DIGEST + 1];
    char *bytes = NULL;
    FILE *file = find_path(path, name, false) ? fopen(path, "rb") : NULL;
    if (!file)
        return NULL;
    struct stat status;
    if (fstat(fileno(file), &status) || status.st_size <= DIGEST || status.st_size > CACHE_MAX)
        goto done;
    *size = (size_t)status.st_size - DIGEST;
    bytes = malloc(*size);
    if (!bytes || fread(found, 1, DIGEST, file) != DIGEST || fread(bytes, 1, *size, file) != *size ||
        !digest(bytes, *size, expected) || memcmp(found, expected, DIGEST) != 0) {
        free(bytes);
        bytes = NULL;
    }
done:
    fclose(file);
    return bytes;
}

void vk_kernel_cache_save(const char *name, const void *bytes, size_t size)
{
    char path[PATH], beside[PATH + 32], hex[DIGEST + 1];
    if (!find_path(path, name, true) || !digest(bytes, size, hex))
        return;
    snprintf(beside, sizeof beside, "%s.XXXXXX", path);
    int fd = mkstemp(beside);
    if (fd < 0)
        return;
    FILE *file = fdopen(fd, "wb");
    if (!file) {
        close(fd);
        unlink(beside);
        return;
    }
    bool written = fwrite(hex, 1, DIGEST, file) == DIGEST && fwrite(bytes, 1, size, file) == size;
    written = fclose(file) == 0 && written;
    if (!written || rename(beside, path))
        unlink(beside);
}
