// fixtures/pytorch.h5, whose groups and attributes make_pytorch.py describes. What cannot be read fails the test.
#ifndef LF_TEST_FIXTURE_H
#define LF_TEST_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool fixture_open(void); // false if there is none
void fixture_close(void);

bool fixture_has(const char *group, const char *attribute);
void fixture_text(const char *group, const char *attribute, char *text, size_t size);
uint32_t fixture_uint(const char *group, const char *attribute);
double fixture_double(const char *group, const char *attribute);
// Returns how many there are, at most `capacity`.
size_t fixture_uints(const char *group, const char *attribute, uint64_t *values, size_t capacity);

// The elements of a data set, which the caller frees.
double *fixture_values(const char *group, const char *name, size_t count);

#endif
