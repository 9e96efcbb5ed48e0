#include "core/hash.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lf_hash {
    EVP_MD_CTX *context;
};

lf_hash *lf_hash_create(lf_error *err)
{
    lf_hash *hash = calloc(1, sizeof *hash);
    if (hash)
        hash->context = EVP_MD_CTX_new();
    if (!hash || !hash->context || EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1) {
        lf_error_set(err, LF_ENOMEM, "sha256: cannot start");
        lf_hash_destroy(hash);
        return NULL;
    }
    return hash;
}

void lf_hash_destroy(lf_hash *hash)
{
    if (!hash)
        return;
    EVP_MD_CTX_free(hash->context);
    free(hash);
}

void lf_hash_update(lf_hash *hash, const void *bytes, size_t size)
{
    EVP_DigestUpdate(hash->context, bytes, size);
}

void lf_hash_text(lf_hash *hash, const char *text)
{
    lf_hash_update(hash, text, strlen(text) + 1);
}

void lf_hash_u64(lf_hash *hash, uint64_t value)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
    lf_hash_update(hash, bytes, sizeof bytes);
}

void lf_hash_finish(lf_hash *hash, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_DigestFinal_ex(hash->context, digest, &size);
    for (unsigned i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL);
}
