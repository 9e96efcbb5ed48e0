// SHA-256 of logical content, through libcrypto. Everyone may call.
#ifndef LF_CORE_HASH_H
#define LF_CORE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

typedef struct lf_hash lf_hash;

lf_hash *lf_hash_create(lf_error *err);
void lf_hash_destroy(lf_hash *hash);
void lf_hash_update(lf_hash *hash, const void *bytes, size_t size);
void lf_hash_text(lf_hash *hash, const char *text); // with its closing zero, so that "ab","c" differs from "a","bc"
void lf_hash_u64(lf_hash *hash, uint64_t value);    // as 8 little-endian bytes
// Writes 64 lowercase hexadecimal digits and a zero; afterwards the hash starts anew.
void lf_hash_finish(lf_hash *hash, char hex[65]);

#endif
